import json
import threading
from pathlib import Path

import pytest

from kfp_image_classification.components.train.history import append_epoch, forget_epochs_after, read_history
from kfp_image_classification.pipelines.runner.local.training_pace import TrainingPace


def written(path: Path, *epochs: int) -> Path:
    for epoch in epochs:
        append_epoch(path, {"epoch": epoch, "val_accuracy": epoch / 100, "images_per_second": 1000.0})
    return path


def epochs(path: Path) -> list[int]:
    return [row["epoch"] for row in read_history(path)]


HALF_LINES = {
    "half a number": '{"epoch": 4, "val_accu',
    "the brace alone": "{",
    "no epoch": '{"val_accuracy": 0.5}\n',
    "another type": "17\n",
    "zeros, as after a power cut": "\0\0\0\0",
}


@pytest.mark.parametrize("half", HALF_LINES.values(), ids=HALF_LINES)
def test_half_a_line_of_a_killed_chief_is_survived(half: str, tmp_path: Path) -> None:
    path = written(tmp_path / "history.jsonl", 1, 2, 3)
    with path.open("a") as file:
        file.write(half)
    assert epochs(path) == [1, 2, 3]
    pace = TrainingPace(tmp_path, 10, 5, 64).measured(0.0)
    assert "val 3.0%" in pace.details
    forget_epochs_after(path, 2)
    written(path, 3, 4)
    assert epochs(path) == [1, 2, 3, 4]
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]


def test_an_epoch_that_was_run_twice_counts_once(tmp_path: Path) -> None:
    assert epochs(written(tmp_path / "history.jsonl", 1, 2, 3, 2, 3, 4)) == [1, 2, 3, 4]


def test_no_history_is_no_rows(tmp_path: Path) -> None:
    assert read_history(tmp_path / "history.jsonl") == []
    forget_epochs_after(tmp_path / "history.jsonl", 3)
    assert not (tmp_path / "history.jsonl").exists()


def test_readers_never_see_part_of_a_history_that_is_rewritten(tmp_path: Path) -> None:
    path = written(tmp_path / "history.jsonl", *range(1, 301))
    seen: list[int] = []
    ends = threading.Event()

    def read() -> None:
        while not ends.is_set():
            seen.append(len(read_history(path)))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        forget_epochs_after(path, 299)
    ends.set()
    reader.join()
    assert set(seen) <= {299, 300}
    assert epochs(path) == list(range(1, 300))
