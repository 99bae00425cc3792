"""How far a training job is and how fast it goes, from the files that its chief writes into the job's folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_image_classification.components.train.history import read_history
from kfp_image_classification.components.train.job_files import HISTORY_FILE, PROGRESS_FILE


@dataclass(frozen=True)
class Pace:
    """A moment of a training.

    Attributes:
        share: Of all steps, from 0 to 1.
        phase: The epoch, or what comes after the last.
        seconds_left: None until two moments are known.
        details: Speed and the last validation accuracy, where they are known.
    """

    share: float
    phase: str
    seconds_left: float | None
    details: str


class TrainingPace:
    """Follows one job."""

    def __init__(self, job: Path, epochs: int, steps_per_epoch: int, images_per_step: int) -> None:
        """Reads nothing yet.

        Args:
            job: The job's folder.
            epochs: That the job is to take.
            steps_per_epoch: As the worker printed it.
            images_per_step: The global batch.
        """
        self._job = job
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._images_per_step = images_per_step
        self._first: tuple[float, int] | None = None

    def measured(self, now: float) -> Pace:
        """Reads the files.

        Args:
            now: Seconds of a clock that only goes forward.
        """
        step, last_epoch = self._step(), self._last_epoch()
        total = self._epochs * self._steps_per_epoch
        if step and (self._first is None or step < self._first[1]):  # a restart goes back to its checkpoint
            self._first = (now, step)
        left = None
        speed = last_epoch.get("images_per_second")
        if self._first and step > self._first[1]:
            per_step = (now - self._first[0]) / (step - self._first[1])
            left = per_step * (total - step)
            speed = speed or self._images_per_step / per_step
        phase = f"epoch {min(self._epochs, step // self._steps_per_epoch + 1)}/{self._epochs}"
        if step >= total:
            phase, left = "exporting the model", None
        details = [f"{speed:,.0f} images/s"] if speed else []
        if last_epoch:
            details.append(f"val {last_epoch['val_accuracy']:.1%}")
        return Pace(min(1.0, step / total), phase, left, "  ".join(details))

    def _step(self) -> int:
        try:
            return int((self._job / PROGRESS_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not there yet
            return 0

    def _last_epoch(self) -> dict[str, Any]:
        rows = read_history(self._job / HISTORY_FILE)
        return rows[-1] if rows else {}
