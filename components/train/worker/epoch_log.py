"""What happens after each epoch: its results are logged, plotted and kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from kfp_image_classification.components.train.history import append_epoch, read_history
from kfp_image_classification.components.train.job_files import HISTORY_FILE, TENSORBOARD_DIRECTORY

VALIDATION_PREFIX = "val_"


class EpochLog:
    """Prints each epoch with its learning rate and speed, and keeps it in the history and for TensorBoard."""

    def __init__(self, directory: Path, epochs: int) -> None:
        """Draws what the history has of earlier attempts.

        Args:
            directory: The job's folder.
            epochs: Of the whole training.
        """
        self._history = directory / HISTORY_FILE
        self._epochs = epochs
        self._curves = _Curves(directory / TENSORBOARD_DIRECTORY)
        for row in read_history(self._history):
            self._curves.draw(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Writes an epoch's row down."""
        append_epoch(self._history, row)
        self._curves.draw(row)
        print(
            f"epoch {row['epoch']:>2}/{self._epochs}  loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
            f"val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}  "
            f"learning rate {row['learning_rate']:.0e}  {row['images_per_second']:,.0f} images/s",
            flush=True,
        )


class _Curves:
    """The history for TensorBoard, under the names that Keras gives its curves.

    Files of an earlier attempt know epochs that are run again, so each attempt draws all of them anew.
    """

    def __init__(self, directory: Path) -> None:
        for old in directory.rglob("events.out.tfevents.*"):
            old.unlink(missing_ok=True)
        self._train, self._validation = (
            tf.summary.create_file_writer(str(directory / split)) for split in ("train", "validation")
        )

    def draw(self, row: Mapping[str, Any]) -> None:
        for name in row.keys() - {"epoch"}:
            writer = self._validation if name.startswith(VALIDATION_PREFIX) else self._train
            with writer.as_default():
                tf.summary.scalar(f"epoch_{name.removeprefix(VALIDATION_PREFIX)}", row[name], step=row["epoch"] - 1)
        self._train.flush()
        self._validation.flush()
