"""The Makefile in a folder of any name; a program that tells how it was called stands for Python."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from repository import REPOSITORY

PYTHON = '#!/bin/sh\nfor word; do printf "%s|" "$word"; done\necho\n'
NAMES = ["a b", "it's", '"q" [a]', "é #1 ?*", "%41 & (x)", "python3;", " x\\y "]


def copied(folder: Path) -> Path:
    """A repository whose environment is set up."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder)
    (folder / ".venv" / "bin" / "python").write_text(PYTHON)
    (folder / ".venv" / "bin" / "python").chmod(0o755)
    (folder / ".venv" / "installed").touch()
    return folder


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-s", *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        (["run", "ARGS=--models cnn"], "pipelines/e2e.py|--run|--models|cnn|"),
        (["submit", "HOST=http://a b"], "pipelines/e2e.py|--submit|--host|http://a b|"),
        (["test"], "-m|pytest|-n|2|-m|not slow and not cluster|"),
        (["lint"], "-m|ruff|check|.|\n-m|ruff|format|--check|.|\n-m|mypy|"),
        (["tensorboard"], "-m|tensorboard.main|--logdir|runs/latest/tensorboard|"),
    ],
)
def test_targets(arguments: list[str], called: str, name: str, tmp_path: Path) -> None:
    ended = make(copied(tmp_path / name), *arguments)
    assert (ended.returncode, ended.stdout) == (0, f"{called}\n"), ended.stderr


def test_what_the_environment_calls_alike_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "x86_64-conda-linux-gnu")
    monkeypatch.setenv("ARGS", "--none")
    assert make(copied(tmp_path / "a"), "submit").stdout == "pipelines/e2e.py|--submit|--host|http://localhost:8080|\n"


@pytest.mark.parametrize("name", [name for name in NAMES if "%" not in name])
def test_mlflow_keeps_everything_in_its_folder(name: str, tmp_path: Path) -> None:
    folder = copied(tmp_path / name)
    for option, kept in (([], folder / "runs" / "mlflow"), ([f"MLFLOW_DIR={tmp_path}/a b"], tmp_path / "a b")):
        ended = make(folder, "mlflow", *option)
        assert ended.returncode == 0, ended.stderr
        assert "|sqlite:///mlflow.db|--artifacts-destination|./artifacts|" in ended.stdout, "of the folder it runs in"
        assert kept.is_dir()


@pytest.mark.parametrize(("name", "target"), [("a$x", "run"), ("a:b", "run"), ("100%", "mlflow")])
def test_folders_with_which_others_cannot_work_are_refused(name: str, target: str, tmp_path: Path) -> None:
    folder = copied(tmp_path / name)
    if target == "run":
        (folder / ".venv" / "installed").unlink()
    ended = make(folder, target)
    assert ended.returncode != 0
    assert f"error: {folder}: " in ended.stderr
    assert "move the repository" in ended.stderr


def test_programs_of_the_environment_are_started_by_its_python() -> None:
    """Their first lines name it, and cannot where its path has a space or is long; uv is no script."""
    recipes = (REPOSITORY / "Makefile").read_text()
    assert set(re.findall(r"\$\(BIN\)/([\w-]+)", recipes)) == {"python", "uv"}
