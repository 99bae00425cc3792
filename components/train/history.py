"""What the chief writes down about each epoch: a row of JSON a line, which a killed chief can leave half written."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp_image_classification.components.contracts.measures import MeasureName
from kfp_image_classification.components.step.whole_file import write_whole


def read_history(path: Path) -> list[dict[str, Any]]:
    """Reads the rows that are whole, in the order of their epochs; of an epoch that was run twice, the last one.

    Returns:
        The rows; none when there is no file.
    """
    rows: dict[int, dict[str, Any]] = {}
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        try:
            row = json.loads(line)
            rows[int(row["epoch"])] = row
        except (ValueError, TypeError, KeyError):
            continue
    return [rows[epoch] for epoch in sorted(rows)]


def append_epoch(path: Path, row: Mapping[str, Any]) -> None:
    """Adds a row, which is on the disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def forget_epochs_after(path: Path, epoch: int) -> None:
    """Drops the rows of epochs that a restart will run again, and what a killed chief has left of one."""
    if path.exists():
        kept = [row for row in read_history(path) if row["epoch"] <= epoch]
        write_whole(path, "".join(f"{json.dumps(row)}\n" for row in kept))


def rank(row: Mapping[str, Any], measure: MeasureName) -> tuple[float, float]:
    """What makes an epoch better than another by its validation: the higher, of equal ones the one with less loss."""
    of_measure = -row["val_loss"] if measure == "log_loss" else row[f"val_{measure}"]
    return float(of_measure), -float(row["val_loss"])


def best_epoch(rows: Sequence[Mapping[str, Any]], measure: MeasureName) -> Mapping[str, Any]:
    """The best row; of equal ones the first."""
    return max(rows, key=lambda row: rank(row, measure))
