"""Checkpoints of a training job: written by the chief, read by all."""

import contextlib
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
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


class CheckpointUnreadable(Exception):
    """A worker cannot restore what its chief has restored."""


class Checkpoints:
    """The last few states of model, optimizers, best epoch and position in one folder.

    A checkpoint counts when it can be read to its end: its index gets its name last, and TensorFlow keeps a checksum of
    every tensor.
    """

    def __init__(
        self,
        directory: Path,
        model: "keras.Model",
        optimizers: Sequence["keras.optimizers.Optimizer"],
        best: tf.Module,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Reads and writes nothing yet.

        Args:
            directory: The folder.
            model: Whose state is saved and restored.
            optimizers: The same, of each phase of the training.
            best: The same, of the best epoch so far.
            check: Asked before a checkpoint gets its name; raises when this process must not write any more.
        """
        self._directory = directory
        self._check = check
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._totals = tf.Variable([0.0, 0.0], trainable=False)
        self._checkpoint = tf.train.Checkpoint(
            model=model, optimizers=[*optimizers], best=best, step=self._step, epoch_totals=self._totals
        )

    def restore(self) -> Position | None:
        """Restores the newest checkpoint that is whole.

        Returns:
            The position after which it was written; None where there is none.
        """
        for path in reversed(self._paths()):
            try:
                return self._read(path)
            except Exception as error:  # a damaged file can fail in any of TensorFlow's readers
                print(f"checkpoint {path.name} is damaged ({type(error).__name__}); using the one before", flush=True)
        return None

    def restore_step(self, step: int, patience: float) -> Position:
        """Restores the checkpoint of one step, which the chief has restored.

        Args:
            step: Which.
            patience: Seconds to wait until it can be read here.

        Raises:
            CheckpointUnreadable: When it cannot be read in time.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                return self._read(self._path(step))
            except Exception as error:  # as above; on a network file system it can also be late
                if time.monotonic() > deadline:
                    raise CheckpointUnreadable(
                        f"the chief continues from {self._path(step)}, which cannot be read here: "
                        f"{type(error).__name__}: {str(error).splitlines()[0]}"
                    ) from None
            time.sleep(0.5)

    def remove_partial(self) -> None:
        """Removes what an earlier chief began to write. Only the chief calls this."""
        for path in self._directory.glob("step-*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)

    def save(self, position: Position) -> bool:
        """Saves the state at a position; the checkpoints before stay until it is whole. Only the chief calls this.

        Returns:
            Whether it was saved. Where not, for want of space, say, training goes on: the one before stays good.
        """
        self._step.assign(position.step)
        self._totals.assign(position.totals)
        name = self._path(position.step).name
        # A folder that no other process writes to, not even a chief that was taken for dead.
        partial = self._directory / f"{name}.{secrets.token_hex(4)}.partial"
        try:
            partial.mkdir(parents=True)
            self._checkpoint.write(str(partial / name))
            self._check()
            for file in sorted(partial.iterdir(), key=_is_index):
                file.replace(self._directory / file.name)
        except (tf.errors.OpError, OSError) as error:
            print(f"checkpoint after step {position.step} was not written: {error}; the one before stays", flush=True)
            return False
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        for old in self._paths()[:-KEPT]:
            self._remove(old)
        return True

    def wait_for(self, position: Position, seconds: float) -> None:
        """Waits until the chief has saved a position, or gives up.

        A worker that left at once could take its part of the last sum with it, which the chief may not have fetched
        yet: the chief would take that for a lost peer, and save nothing.
        """
        index = self._path(position.step).with_suffix(".index")
        deadline = time.monotonic() + seconds
        while not index.exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _read(self, path: Path) -> Position:
        with literal_path(path.parent) as directory:
            self._checkpoint.read(str(directory / path.name)).assert_existing_objects_matched()
        loss, correct = self._totals.numpy().tolist()
        return Position(int(self._step.numpy()), (loss, correct))

    def _path(self, step: int) -> Path:
        return self._directory / f"step-{step:010d}"

    def _paths(self) -> list[Path]:
        return sorted(path.with_suffix("") for path in self._directory.glob("step-*.index"))

    def _remove(self, path: Path) -> None:
        # The index first: without it, the rest is no checkpoint.
        for file in sorted(self._directory.glob(f"{path.name}.*"), key=_is_index, reverse=True):
            with contextlib.suppress(OSError):
                file.unlink()


def _is_index(file: Path) -> bool:
    return file.suffix == ".index"


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
