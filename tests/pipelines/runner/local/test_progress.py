"""What a run's output means, step by step; the lines are kfp.local's and the components' own."""

import json
from pathlib import Path

import pytest

from kfp_image_classification.pipelines.runner.local.progress import Progress
from kfp_image_classification.pipelines.runner.local.training_pace import Pace, TrainingPace

MAIN, LOOP_A, LOOP_B = 1, 2, 3


def executing(task: str) -> str:
    return f"14:31:56.515 - INFO - Executing task \x1b[96m'{task}'\x1b[0m"


def started(folder: str, output: str) -> list[str]:
    """As KFP's executor tells what it got: inputs first, then outputs, in JSON."""
    inputs = {"parameterValues": {"dataset": "image_folder:/data/ingest/train/evaluate/x"}}
    outputs = {"artifacts": {output: [{"uri": f"{folder}/{output}"}]}, "outputFile": f"{folder}/executor_output.json"}
    return [f"    {line}" for line in json.dumps({"inputs": inputs, "outputs": outputs}, indent=4).splitlines()]


@pytest.fixture
def progress(tmp_path: Path) -> Progress:
    return Progress(["cnn", "resnet"], tmp_path)


def states(progress: Progress) -> dict[str, str]:
    return {step.title: step.state for step in progress.finished()}


def feed(progress: Progress, thread: int, *lines: str) -> list[str]:
    return [told for line in lines if (told := progress.take(line, thread))]


def test_steps_of_two_models_at_once_are_told_apart(progress: Progress) -> None:
    loop = "/runs/1/p/for-loop-1-iteration-{}/train"
    feed(progress, LOOP_A, executing("train"))
    feed(progress, LOOP_B, executing("train"))
    feed(progress, LOOP_B, *started(loop.format(0), "model"))
    feed(progress, LOOP_A, *started(loop.format(1), "model"))
    told = feed(progress, LOOP_A, "    [train resnet] starting 2 workers")
    told += feed(progress, LOOP_B, "    [train cnn] starting 2 workers", "    [train cnn] took 12.5 s")
    assert told == ["[train resnet] starting 2 workers", "[train cnn] starting 2 workers"]
    cnn, resnet = progress.find("train", "cnn"), progress.find("train", "resnet")
    assert cnn is not None
    assert resnet is not None
    assert (cnn.state, cnn.seconds, resnet.state) == ("done", 12.5, "running")
    assert resnet.folder == Path(loop.format(1))


def test_parts_of_a_data_set_are_steps_of_their_own(progress: Progress) -> None:
    for iteration, thread in ((0, LOOP_A), (4, LOOP_B)):
        feed(progress, thread, executing("ingest-part"))
        folder = f"/runs/1/p/for-loop-1-iteration-{iteration}/ingest-part"
        feed(progress, thread, *started(folder, "Output"), "    [ingest-part] took 2.5 s")
    assert {name: state for name, state in states(progress).items() if "part" in name} == {
        "ingest-part 1": "done",
        "ingest-part 5": "done",
    }


@pytest.mark.parametrize(
    ("lines", "unexplained"),
    [
        (["    [ingest] error: dataset = 'x': not found"], []),
        (["    Traceback (most recent call last):", "    ZeroDivisionError: division by zero"], ["ingest"]),
    ],
    ids=["told", "crashed"],
)
def test_failed_step_keeps_its_last_lines(progress: Progress, lines: list[str], unexplained: list[str]) -> None:
    feed(progress, MAIN, executing("ingest"), *started("/runs/1/p/ingest", "shards"))
    feed(progress, MAIN, "    [KFP Executor 2026-11-24 14:31:56,569 INFO]: Got executor_input:", *lines)
    feed(progress, MAIN, "14:32:01.1 - INFO - Task \x1b[96m'ingest'\x1b[0m finished with status \x1b[91mFAILURE\x1b[0m")
    feed(progress, MAIN, "Skipping task for-loop-1: upstream task(s) ['ingest'] failed.")
    assert [step.title for step in progress.unexplained()] == unexplained
    ingest, *others = progress.finished()
    assert (ingest.state, ingest.last_lines) == ("failed", [line.strip() for line in lines])
    assert {step.state for step in others} == {"skipped"}


def test_step_that_a_pipeline_has_twice_is_the_later_one(progress: Progress) -> None:
    """As in retrain, which looks at a data set and then trains on another; KFP numbers the second of a name."""
    for task, seconds in (("ingest", 2.5), ("ingest-2", 3.5)):
        feed(progress, MAIN, executing(task), *started(f"/runs/1/p/{task}", "shards"))
        assert feed(progress, MAIN, "    [ingest] x: 10 train") == ["[ingest] x: 10 train"]
        feed(progress, MAIN, f"    [ingest] took {seconds} s")
    ingest = progress.finished()[0]
    assert (ingest.state, ingest.seconds, ingest.folder) == ("done", 3.5, Path("/runs/1/p/ingest-2"))
    assert [title for title, state in states(progress).items() if state != "skipped"] == ["ingest"]


def test_cached_steps_are_known_by_their_cache_entries(progress: Progress, tmp_path: Path) -> None:
    model = {"uri": "/runs/0/p/for-loop-1-iteration-0/train/model", "metadata": {"model_type": "resnet"}}
    (tmp_path / "abc123def456789.json").write_text(json.dumps({"model": model}))
    metrics = {"uri": "/runs/0/p/for-loop-1-iteration-0/evaluate/metrics", "metadata": {}}
    (tmp_path / "0123456789abcde.json").write_text(json.dumps({"metrics": metrics}))
    told = feed(
        progress,
        LOOP_A,
        "Task train cache hit (key=abc123def456); skipping execution.",
        "Task evaluate cache hit (key=0123456789ab); skipping execution.",
    )
    assert [line.split("]")[0] for line in told] == ["[train resnet", "[evaluate resnet"]
    assert states(progress)["evaluate resnet"] == "cached"
    assert states(progress)["evaluate cnn"] == "skipped"
    evaluate = progress.find("evaluate", "resnet")
    assert evaluate is not None
    assert evaluate.folder == Path("/runs/0/p/for-loop-1-iteration-0/evaluate")


def test_step_that_the_pipeline_has_besides_is_followed_too(progress: Progress) -> None:
    feed(progress, MAIN, executing("publish"), *started("/runs/1/p/condition-4/publish", "link"))
    assert feed(progress, MAIN, "    [publish] published") == ["[publish] published"]
    feed(progress, MAIN, "    [publish] took 1.0 s")
    assert states(progress)["publish"] == "done"


@pytest.mark.parametrize(
    ("seen", "share", "phase", "left", "details"),
    [
        ([(0, "", None)], 0.0, "epoch 1/4", None, ""),
        ([(0, "10", None)], 0.025, "epoch 1/4", None, ""),
        ([(0, "10", None), (10, "110", None)], 0.275, "epoch 2/4", 29.0, "640 images/s"),
        ([(0, "10", 8000), (10, "110", 8000)], 0.275, "epoch 2/4", 29.0, "8,000 images/s  val 97.5%"),
        # A restart goes back to a checkpoint, and is measured from there.
        ([(0, "200", None), (10, "100", None), (20, "150", None)], 0.375, "epoch 2/4", 50.0, "320 images/s"),
        ([(0, "10", 8000), (10, "400", 8000)], 1.0, "exporting the model", None, "8,000 images/s  val 97.5%"),
    ],
    ids=["nothing yet", "first steps", "within an epoch", "after an epoch", "restarted", "done"],
)
def test_pace_of_a_training(
    seen: list[tuple[float, str, float | None]],
    share: float,
    phase: str,
    left: float | None,
    details: str,
    tmp_path: Path,
) -> None:
    pace = TrainingPace(tmp_path, epochs=4, steps_per_epoch=100, images_per_step=64)
    for now, step, speed in seen:
        (tmp_path / "progress").write_text(step)
        if speed:
            row = {"epoch": 1, "images_per_second": speed, "val_accuracy": 0.975}
            (tmp_path / "history.jsonl").write_text(json.dumps(row))
        measured = pace.measured(now)
    assert measured == Pace(share, phase, left, details)
