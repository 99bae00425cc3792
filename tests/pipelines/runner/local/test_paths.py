"""A run in a folder of any name, on data in one, beside other runs: nothing in a name means more than itself."""

import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kfp import dsl, local
from PIL import Image
from real_run import SCRIPT

from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.pipelines.runner.local.literal_values import literal_values
from kfp_image_classification.pipelines.runner.local.local_run import LocalRun, _logging_to
from kfp_image_classification.pipelines.runner.local.progress import Progress
from kfp_image_classification.pipelines.runner.local.run_folder import make_run_folder
from kfp_image_classification.pipelines.runner.local.step_output import StepOutput

NAMES = [
    "plain",
    "a letter é, 字, 🙂",
    "quotes ' \" `",
    "brackets [a] [ ] [bold] ] [",
    "patterns * ? \\ {a,b}",
    "python3 python3.11",
    "placeholders {{$.inputs.parameters['x']}} {{$}} {{x}} $HOME ${x} $(x)",
    "kfp-workspace",
    "percent %20 %s %%, # & ; | < > ! ~",
    "two\nlines",
    "-e",
    " spaces around ",
    "a dot.",
    "n" * 250,
]
NASTY = "-é ]q'\"[a] [ ] [b/]/[/b] \\ *?#%&$.{{$.x}} python3 \n."
CLASSES = ("cat [red]", "d[]g é'\"", ":smile: *")
RUN_SECONDS = 400


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def echo(said: str, paper: dsl.Output[dsl.Artifact]) -> str:
    """Writes down what it was told."""
    with open(paper.path, "w") as file:  # noqa: PTH123 - KFP takes the function's source alone
        file.write(said)
    return said


@pytest.mark.parametrize("name", NAMES)
def test_a_step_gets_and_gives_names_as_they_are(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    said = str(folder).replace("{{$", "{{")  # in a parameter, KFP's placeholders are refused before a run
    progress = Progress([], tmp_path)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(folder))

    @dsl.pipeline(name="one-step")
    def one_step(said: str) -> dsl.Artifact:
        return echo(said=said).outputs["paper"]

    with (tmp_path / "log").open("w") as log, pytest.MonkeyPatch.context() as patched:
        output = StepOutput(log, progress, lambda line: None, verbose=False)
        patched.setattr("sys.stdout", output)
        with _logging_to(output), literal_values():
            paper = one_step(said=said).outputs["Output"]
    assert Path(paper.path).read_text() == said
    assert Path(paper.path).is_relative_to(folder)
    step = progress.find("echo", "")
    assert step is not None
    assert step.folder == Path(paper.path).parent


def test_an_interpreter_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / 'it\'s "my" $python3' / "bin"
    python.mkdir(parents=True)
    (python / "python").write_text(f'#!/bin/sh\ntouch "{tmp_path}/used"\nexec {shlex.quote(sys.executable)} "$@"\n')
    (python / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python / "python"))
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path))
    with literal_values():
        assert echo(said="hello").outputs["Output"] == "hello"
    assert (tmp_path / "used").exists()


def test_a_whole_run_where_every_name_is_odd(tmp_path: Path) -> None:
    here = tmp_path / NASTY
    for label, name in enumerate(CLASSES):
        (here / "im [a] python3" / name).mkdir(parents=True)
        for index in range(60):
            colour = (index + 60 * label, 200 * (label == 0), 200 * (label == 1))
            Image.new("RGB", (20, 20), colour).save(here / "im [a] python3" / name / f"[{index}].png")
    options = ["--models", "cnn_small", "--epochs", "1", "--batch-size", "20", "--gate", "0"]
    ended = subprocess.run(
        [sys.executable, SCRIPT, "--run", *options, "--runs-dir=-r", "--dataset=image_folder:im [a] python3"],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (run,) = [path for path in (here / "-r").iterdir() if path.name not in ("latest", ".cache", ".served")]
    assert f"report  -r/{run.name}/report.html" in ended.stdout
    assert any(f"was shown a {name} and answered" in ended.stdout for name in CLASSES), ended.stdout
    assert (run / "model" / "1" / "saved_model.pb").is_file()
    assert list((run / "tensorboard" / "cnn_small").rglob("events*"))
    (curves,) = [line for line in ended.stdout.splitlines() if line.startswith("curves ")]
    assert shlex.split(curves)[-1] == f"--logdir=-r/{run.name}/tensorboard"
    assert "[red]" in (run / "report.html").read_text()


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: make_run_folder(tmp_path / "runs"), range(40)))
    assert len(set(folders)) == 40
    assert all(re.fullmatch(r"\d{8}-\d{6}(-\d+)?", folder.name) for folder in folders)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {*(folder.name for folder in folders), "latest"}
    assert (tmp_path / "runs" / "latest").resolve() in folders


def test_latest_is_never_missing(tmp_path: Path) -> None:
    make_run_folder(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(lambda: [make_run_folder(tmp_path) for _ in range(200)])
        while not made.done():
            assert (tmp_path / "latest").is_dir()


@pytest.mark.parametrize(
    ("runs_dir", "reason"),
    [
        ("file", "cannot be written (File exists)"),
        ("file/runs", "cannot be written (Not a directory)"),
        ("nowhere", "cannot be written (File exists)"),
        ("taken", "cannot be written (Is a directory)"),
        ("/proc/runs", "cannot be written ("),
        ("~no-such-user/runs", "cannot be written (Could not determine home directory.)"),
        ("n" * 256, "cannot be written (File name too long)"),
        ("/".join(["n" * 200] * 20), "has "),
        (os.fsdecode(b"\xff"), "is not UTF-8"),
    ],
)
def test_folder_in_which_there_can_be_no_run(
    runs_dir: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to("not-there")
    (tmp_path / "taken" / "latest" / "x").mkdir(parents=True)
    with pytest.raises(InvalidInput) as refused:
        LocalRun(Path(runs_dir), use_cache=True, verbose=False, plain=True)
    assert str(refused.value).startswith(f"runs_dir = {runs_dir!r}: {reason}")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "latest", "nowhere", "taken", "x"]


def test_home_and_links_in_the_folders_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert make_run_folder(Path("~/runs")).parent == tmp_path / "home" / "runs"
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to("disk")
    assert make_run_folder(tmp_path / "runs").resolve().parent == tmp_path / "disk"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "image_folder:/a/{{$.x}}"], "dataset = 'image_folder:/a/{{$.x}}': KFP takes {{$ for a"),
        (["--data-dir", "{{$}}"], "data_dir = '{{$}}': KFP takes {{$ for a placeholder"),
        (["--data-dir", os.fsdecode(b"\xff")], "data_dir = '\\udcff': is not UTF-8"),
        (["--job", '{"env": {"A": "{{$.x}}"}}'], "job = {'env': {'A': '{{$.x}}'}}: KFP takes {{$ for a placeholder"),
    ],
)
def test_what_kfp_cannot_pass_on_is_refused(options: list[str], message: str, command, tmp_path: Path) -> None:
    ended = command("--run", f"--runs-dir={tmp_path / 'runs'}", *options)
    assert ended.code == 2
    assert any(line.startswith(f"error: {message}") for line in ended.err), ended.err
    assert list(tmp_path.iterdir()) == []


def test_class_and_file_names_that_are_not_utf_8_are_told(command, tmp_path: Path) -> None:
    for name in (b"cat", b"d\xffg"):
        folder = tmp_path / os.fsdecode(name)
        folder.mkdir()
        Image.new("RGB", (20, 20)).save(folder / "1.png")
    ended = command("--run", f"--runs-dir={tmp_path / 'runs'}", "--dataset", f"image_folder:{tmp_path}")
    assert ended.code == 2
    problem = f"error: dataset = 'image_folder:{tmp_path}': the name 'd\\udcffg' is not UTF-8; rename it"
    assert problem in ended.err


def test_runs_started_together_share_a_folder(tmp_path: Path) -> None:
    """Two processes, in the same second; the data is refused later, in ingest, so that they are short."""
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(100):
            Image.new("RGB", (20, 20)).save(tmp_path / "images" / name / f"{index}.png")
    (tmp_path / "images" / "cat" / "7.png").write_bytes(b"")
    command = [sys.executable, SCRIPT, "--run", "--models", "cnn_small", "--batch-size", "20", "--dataset"]
    together = [
        subprocess.Popen(
            [*command, f"image_folder:{tmp_path / 'images'}"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]
    shown = [process.communicate(timeout=RUN_SECONDS)[0].decode() for process in together]
    assert all("7.png is empty" in text for text in shown), shown
    reports = {match[0] for text in shown if (match := re.search(r"report: .*report.html", text))}
    assert len(reports) == 2, shown
