"""Checkpoints of a training job: written by the chief, read by all."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

from kfp_image_classification.components.step.literal_path import literal_path

if TYPE_CHECKING:
    import keras

KEPT = 3


@dataclass(frozen=True)
class Position:
    """Where training stands.

    Attributes:
        step: Steps taken since the start; the position in the data follows from it (see `input_pipeline`).
        totals: Sum of losses and number of correct images in the current epoch so far.
    """

    step: int
    totals: tuple[float, float]


class Checkpoints:
    """The last few states of model, optimizer and position in one folder.

    A checkpoint counts when it can be read to its end: TensorFlow writes the index of a checkpoint last, and keeps a
    checksum of every tensor.
    """

    def __init__(self, directory: Path, model: "keras.Model", optimizer: "keras.optimizers.Optimizer") -> None:
        self._directory = directory
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._totals = tf.Variable([0.0, 0.0], trainable=False)
        self._checkpoint = tf.train.Checkpoint(
            model=model, optimizer=optimizer, step=self._step, epoch_totals=self._totals
        )

    def restore(self) -> Position | None:
        """Restores the newest checkpoint that is whole.

        Returns:
            The position after which it was written; None where there is none.
        """
        for path in reversed(self._paths()):
            try:
                with literal_path(self._directory) as directory:
                    self._checkpoint.read(str(directory / path.name)).assert_existing_objects_matched()
            except Exception as error:  # a damaged file can fail in any of TensorFlow's readers
                print(f"checkpoint {path.name} is damaged ({type(error).__name__}); using the one before", flush=True)
                continue
            loss, correct = self._totals.numpy().tolist()
            return Position(int(self._step.numpy()), (loss, correct))
        return None

    def save(self, position: Position) -> bool:
        """Saves the state at a position; the checkpoints before stay until it is whole. Only the chief calls this.

        Returns:
            Whether it was saved. Where not, for want of space, say, training goes on: the one before stays good.
        """
        self._step.assign(position.step)
        self._totals.assign(position.totals)
        path = self._directory / f"step-{position.step:010d}"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._checkpoint.write(str(path))
        except (tf.errors.OpError, OSError) as error:
            self._remove(path)
            print(f"checkpoint after step {position.step} was not written: {error}; the one before stays", flush=True)
            return False
        for old in self._paths()[:-KEPT]:
            self._remove(old)
        return True

    def wait_for(self, position: Position, seconds: float) -> None:
        """Waits until the chief has saved a position, or gives up.

        A worker that left at once could take its part of the last sum with it, which the chief may not have fetched
        yet: the chief would take that for a lost peer, and save nothing.
        """
        index = self._directory / f"step-{position.step:010d}.index"
        deadline = time.monotonic() + seconds
        while not index.exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _paths(self) -> list[Path]:
        return sorted(path.with_suffix("") for path in self._directory.glob("step-*.index"))

    def _remove(self, path: Path) -> None:
        # The index first: without it, the rest is no checkpoint.
        for file in sorted(self._directory.glob(f"{path.name}*"), key=lambda file: file.suffix != ".index"):
            if file.is_dir():
                for part in file.iterdir():
                    part.unlink(missing_ok=True)
                file.rmdir()
            else:
                file.unlink(missing_ok=True)


class TimedCheckpoints:
    """Saves when it is time to; does nothing in workers other than the chief."""

    def __init__(self, checkpoints: Checkpoints, seconds: float, is_chief: bool) -> None:
        """Prepares.

        Args:
            checkpoints: Where to save.
            seconds: Between two checkpoints, at least.
            is_chief: Whether this worker saves.
        """
        self._checkpoints, self._seconds, self._is_chief = checkpoints, seconds, is_chief
        self._last = time.monotonic()

    def start(self) -> None:
        """Says that the training begins, from which the time to the first checkpoint counts."""
        self._last = time.monotonic()

    def save(self, position: Position, at_once: bool) -> None:
        """Saves the state at a position when the last time is long ago, or it must be now."""
        if self._is_chief and (at_once or time.monotonic() - self._last > self._seconds):
            self._checkpoints.save(position)
            self._last = time.monotonic()

    def wait_for(self, position: Position, seconds: float) -> None:
        """Waits until the chief has saved a position, or gives up."""
        self._checkpoints.wait_for(position, seconds)
