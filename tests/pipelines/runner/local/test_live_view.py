"""The live view as people see it: the command line in a terminal of its own."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest
from real_run import SCRIPT, START_SECONDS, assert_no_process_left

HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"


class Terminal:
    """A pseudo-terminal with the pipeline running in it."""

    def __init__(self, directory: Path, columns: int, *options: str) -> None:
        self._leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        environment = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
        }
        self.process = subprocess.Popen(
            [sys.executable, SCRIPT, "--run", "--models", "cnn", "cnn_small", *options],
            cwd=directory,
            env={**environment, "TERM": "xterm-256color"},
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
        )
        os.close(follower)
        self.written = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, pattern: str) -> None:
        with self._changed:
            seen = self._changed.wait_for(lambda: re.search(pattern, self.text), START_SECONDS)
        assert seen, self.text

    def wait(self) -> int:
        code = self.process.wait(START_SECONDS)
        self._reader.join(5)
        return code

    @property
    def text(self) -> str:
        """All that was written, without colours and movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.written)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._leader, 65536)
            except OSError:  # the last one who could write is gone
                return
            with self._changed:
                self.written += data.decode(errors="replace")
                self._changed.notify_all()


def rows(text: str) -> set[str]:
    return set(re.findall(r"^\S ((?:ingest|train|evaluate|select|deploy)(?: [\w…]+)?)", text, re.MULTILINE))


def test_failure_is_told_after_the_view_is_gone_on_a_narrow_terminal(unreadable_images: Path, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, 44, "--dataset", f"image_folder:{unreadable_images}")
    assert terminal.wait() == 1
    assert len(rows(terminal.text)) == 7
    assert terminal.written.rindex(SHOWN) > terminal.written.rindex(HIDDEN)
    last = terminal.written[terminal.written.rindex(SHOWN) :]
    assert "report.html" in last
    assert "dog/7.png is empty" in re.sub(r"\s+", " ", terminal.text)
    assert "Traceback" not in terminal.text
    assert_no_process_left(tmp_path)


def test_training_is_shown_and_ctrl_c_leaves_a_clean_terminal(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, 100, "--epochs", "500")
    terminal.wait_for(r"train cnn\S* .*epoch \d+/500  [\d:]+ left  [\d,]+ images/s  val [\d.]+%")
    os.killpg(terminal.process.pid, signal.SIGINT)  # as a terminal does: to everything that runs in it
    assert terminal.wait() == 130
    assert terminal.written.rindex(SHOWN) > terminal.written.rindex(HIDDEN)
    after = terminal.text[terminal.text.rindex("stopping: ending all workers") :]
    assert after.strip().splitlines() == ["stopping: ending all workers and servers"]
    assert "Traceback" not in terminal.text
    assert_no_process_left(tmp_path)


@pytest.mark.slow
def test_plain_lines_on_a_terminal_where_asked_for(unreadable_images: Path, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, 100, "--plain", "--dataset", f"image_folder:{unreadable_images}")
    assert terminal.wait() == 1
    assert "\x1b" not in terminal.written[: terminal.written.index("[ingest] error")]
