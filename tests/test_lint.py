"""What `make lint` runs."""

import ast
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


def test_text_names_its_encoding_everywhere() -> None:
    """What ruff's PLW1514 does not see: methods of paths that it cannot tell to be paths, and pipes of processes."""
    wrong = []
    for folder in ("components", "pipelines", "benchmarks", "manifests", "examples"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            wrong += [f"{path}:{call.lineno}" for call in calls if lacks_encoding(call)]
    assert not wrong


def lacks_encoding(call: ast.Call) -> bool:
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in given:
        return False
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if ast.unparse(call.func) in ("Image.open", "os.open"):
        return False
    if name == "open":
        mode = given.get("mode") or next(iter(call.args[isinstance(call.func, ast.Name) :]), ast.Constant("r"))
        return not (isinstance(mode, ast.Constant) and "b" in str(mode.value))
    text = given.get("text")
    return name in ("read_text", "write_text") or (isinstance(text, ast.Constant) and bool(text.value))
