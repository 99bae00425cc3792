"""What `make lint` runs."""

import re
import subprocess
import sys

import pytest
from repository import REPOSITORY

(RECIPE,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
COMMANDS = [line.strip().removeprefix("$(BIN)/") for line in RECIPE.splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_tree_is_clean(command: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
