"""What a run tells of a training that started again: in the terminal and in the report."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from leaderboards import candidate, ranking

from kfp_image_classification.components.train.attempts import Restart
from kfp_image_classification.pipelines.runner.local.report import report_page
from kfp_image_classification.pipelines.runner.local.run_record import RunRecord, Step
from kfp_image_classification.pipelines.runner.local.summary import print_summary

SECONDS = {"wait": 2.0, "start": 5.0, "connect": 0.2, "build": 1.0, "train": 20.0, "restarts": 12.5, "end": 0.3}
KILLED = {"reason": "worker-1 was ended by signal 9", "seconds": 8.5, "steps": 40}
STUCK = {"reason": "", "seconds": 4.0, "steps": 0}
ROW = {
    "epoch": 1,
    "loss": 0.5,
    "accuracy": 0.8,
    "val_loss": 0.4,
    "val_accuracy": 0.9,
    "learning_rate": 1e-3,
    "images_per_second": 1000.0,
}


def left(folder: Path, artifact: str, **metadata: Any) -> Path:
    folder.mkdir(parents=True)
    recorded = {"artifacts": {artifact: {"artifacts": [{"uri": str(folder / artifact), "metadata": metadata}]}}}
    (folder / "executor_output.json").write_text(json.dumps(recorded))
    return folder


def record_of(folder: Path, *restarts: dict[str, Any], state: str = "done") -> RunRecord:
    ranked = ranking(candidate("cnn"))
    trained = left(folder / "train", "model", seconds=SECONDS, restarts=list(restarts), history=[ROW])
    steps = [
        Step(stage="ingest"),
        Step(stage="train", model="cnn", state=state, started=1.0, seconds=44.0, folder=trained),
        Step(stage="evaluate", model="cnn"),
        Step(stage="select", state="done", folder=left(folder / "select", "leaderboard", ranking=ranked)),
        Step(stage="deploy"),
    ]
    return RunRecord(
        directory=folder,
        started=datetime.now(),
        seconds=50.0,
        parameters={
            "dataset": "mnist_5k",
            "models": ["cnn"],
            "service_name": "digits",
            "gate": 0.5,
            "epochs": 1,
        },
        steps=steps,
    )


def test_phases_of_a_training_add_up_to_its_step(tmp_path: Path) -> None:
    phases = record_of(tmp_path, KILLED).step("train", "cnn").phases
    assert sum(phases.values()) == pytest.approx(44.0)
    assert phases == pytest.approx(
        {"wait": 2.0, "start": 5.0, "build": 1.0, "train": 20.0, "restarts": 12.5, "other": 3.5}
    )


@pytest.mark.parametrize(
    ("restarts", "sentence"),
    [
        ([], None),
        (
            [KILLED],
            "train cnn started again once, which cost 8.5 s: worker-1 was ended by signal 9 (8.5 s, 40 steps taken "
            "again)",
        ),
        (
            [KILLED, STUCK],
            "train cnn started again 2 times, which cost 12.5 s: worker-1 was ended by signal 9 (8.5 s, 40 steps taken "
            "again), nobody told why (4.0 s, 0 steps taken again)",
        ),
    ],
    ids=["never", "once", "twice"],
)
def test_restarts_are_told(
    restarts: list[dict[str, Any]],
    sentence: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    record = record_of(tmp_path, *restarts)
    print_summary(record, keeps_serving=False)
    printed = capsys.readouterr().out
    record.__dict__["best_card"] = None
    page = report_page(record, {})
    if sentence is None:
        assert "started again" not in printed + page
        return
    assert sentence in printed
    assert "restarts 12.5" in printed
    assert f"{sentence}." in page


def test_restarts_of_an_earlier_run_are_not_this_ones(tmp_path: Path) -> None:
    assert record_of(tmp_path, KILLED, state="cached").restarts == []


def test_model_from_before_there_were_restarts_is_read(tmp_path: Path) -> None:
    record = record_of(tmp_path)
    left(tmp_path / "old", "model", seconds=SECONDS, history=[ROW])
    assert record.step("train", "cnn").model_copy(update={"folder": tmp_path / "old"}).restarts == []


def test_restart_goes_through_json() -> None:
    assert (
        Restart(**json.loads(json.dumps(KILLED))).words
        == "worker-1 was ended by signal 9 (8.5 s, 40 steps taken again)"
    )
