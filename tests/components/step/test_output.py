"""Streams that are closed, and terminals that lack a letter, do not end a program."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LATIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(code: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-c", code]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=False)


@pytest.mark.parametrize(
    "shell", ["", "<&-", ">&-", "2>&-", "<&- >&- 2>&-"], ids=["open", "no input", "no output", "no errors", "none"]
)
def test_closed_streams(shell: str, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from kfp_image_classification.components.step.output import steady_streams\n"
        "steady_streams()\n"
        f"file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "assert file.fileno() > 2\n"
        "print('shown'); sys.stderr.write('told'); assert not sys.stdout.isatty(); sys.stdin.read()"
    )
    ended = run(code, shell or "</dev/null")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "file").read_text() == ""


def test_letter_that_the_terminal_lacks() -> None:
    code = (
        "from kfp_image_classification.components.step.output import steady_streams\n"
        "steady_streams()\n"
        "print('gr\\u00fcn \\u2502', flush=True); open('/dev/stdout', 'w').write('\\u2502')"
    )
    for environment in (LATIN, {"PYTHONIOENCODING": "latin-1"}):
        ended = run(code, **environment)
        assert ended.returncode == 0, ended.stderr
    assert run(code, **LATIN).stdout == "gr?n ?\n│".encode()


def test_program_begins_anew_where_names_of_files_are_not_utf_8() -> None:
    code = (
        "import sys\n"
        "from kfp_image_classification.components.step.output import start_in_utf8\n"
        "start_in_utf8()\n"
        "print(sys.getfilesystemencoding(), ascii(sys.argv[1:]), '\\u00fc')"
    )
    command = [sys.executable, "-c", code, "ü"]
    ended = subprocess.run(command, env={**os.environ, **LATIN}, capture_output=True, check=False)
    assert ended.stdout == b"utf-8 ['\\xfc'] ?\n", ended.stderr


def test_reader_that_leaves_does_not_end_the_program() -> None:
    code = (
        "import sys\n"
        "from kfp_image_classification.components.step.output import write_line\n"
        "for number in range(100_000): write_line(sys.stdout, f'line {number}')\n"
        "print('at the end'); sys.stderr.write('done')"
    )
    ended = subprocess.run(
        ["sh", "-c", '"$@" | head -1', "sh", sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert (ended.stdout, ended.stderr) == ("line 0\n", "done")
