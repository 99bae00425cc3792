"""No test is skipped unnoticed: each skip says for want of what, and `--require` turns it into a failure."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from repository import REPOSITORY

TESTS = """
import pytest
from skips import Need, needs_tool, skip, skip_unless, tool

@pytest.fixture
def server():
    tool("no-such-server", "nor-this-one")

def test_in_a_fixture(server): pass

def test_in_a_test(): tool("no-such-program")

@needs_tool("no-such-program")
def test_marked(): pass

@skip_unless(False, Need.DEFINITIONS, "there are none")
def test_definitions(): pass

def test_cluster(): skip(Need.CLUSTER, "there is none")

def test_unexplained(): pytest.skip("because")

@pytest.mark.xfail
def test_expected(): raise AssertionError
"""


@pytest.mark.parametrize(
    ("options", "failed"),
    [
        ([], set()),
        (["--require", "tool"], {"in_a_fixture", "in_a_test", "marked", "unexplained"}),
        (["--require", "definitions"], {"definitions", "unexplained"}),
        (["--require", "cluster", "--require", "definitions"], {"cluster", "definitions", "unexplained"}),
    ],
)
def test_required_things_are_not_skipped(options: list[str], failed: set[str], tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text('import pytest\npytest.importorskip("no_such_module")\n')
    ended = _pytest(tmp_path, *options)
    if failed:
        failed = failed | {"module"}  # skipped as a whole, without a reason of ours
    assert set(re.findall(r"^(?:FAILED|ERROR) test_(?:some\.py::test_)?(\w+)", ended.stdout, re.MULTILINE)) == failed
    assert ended.returncode == (1 if failed else 0), ended.stdout


def _pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    tests = REPOSITORY / "tests"
    command = [sys.executable, "-m", "pytest", "-p", "skips", "-rfE", "--continue-on-collection-errors", *options]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(tests)}, capture_output=True, text=True, check=False
    )


def test_every_skip_says_for_want_of_what() -> None:
    own = re.compile(r"\b(pytest\.skip|importorskip|skipif|skipUnless|skipTest|SkipTest)\b")
    for path in sorted((REPOSITORY / "tests").rglob("*.py")):
        if path.name not in ("skips.py", Path(__file__).name):
            assert not own.search(path.read_text()), f"{path} skips by itself; tests/skips.py has the ways to do it"
