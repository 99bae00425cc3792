"""What `make lint` runs."""

import re
import subprocess
import sys

import pytest
from repository import REPOSITORY

(RECIPE,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
COMMANDS = [line.strip().removeprefix("$(BIN)/python -m ") for line in RECIPE.splitlines()]


def test_brackets_in_what_is_shown_are_no_markup() -> None:
    """Names of classes, files and models are a user's: rich would take `[red]` for a colour, `:x:` for a picture."""
    consoles = []
    for folder in ("benchmarks", "components", "pipelines"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            consoles += re.findall(r"\bConsole\((?!\.)[^)]*\)", path.read_text())
    assert len(consoles) > 5
    assert [console for console in consoles if "markup=False" not in console or "emoji=False" not in console] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_tree_is_clean(command: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
