"""What happens around each epoch: the learning rate is set, and the epoch's results are logged, plotted and kept."""

import json
from pathlib import Path
from typing import Any

import keras

from kfp_image_classification.components.train.job_files import HISTORY_FILE
from kfp_image_classification.components.train.learning_rate import LearningRateSteps


class EpochLog(keras.callbacks.Callback):
    """Prints each epoch with its learning rate and speed, and appends it to a JSON-lines file."""

    def __init__(self, path: Path, epochs: int) -> None:
        super().__init__()
        self._path = path
        self._epochs = epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        rate = float(self.model.optimizer.learning_rate.numpy())
        row = {
            "epoch": epoch + 1,
            **{name: float(value) for name, value in (logs or {}).items()},
            "learning_rate": rate,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(
            f"epoch {epoch + 1:>2}/{self._epochs}  loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
            f"val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}  "
            f"learning rate {rate:.0e}  {row['images_per_second']:,.0f} images/s",
            flush=True,
        )


def training_callbacks(
    directory: Path, schedule: LearningRateSteps, epochs: int, is_chief: bool
) -> list[keras.callbacks.Callback]:
    """The callbacks of one worker: all follow the schedule, the chief alone logs."""
    callbacks: list[keras.callbacks.Callback] = [
        keras.callbacks.LearningRateScheduler(lambda epoch, _: schedule.at(epoch, epochs))
    ]
    if is_chief:
        callbacks += [
            keras.callbacks.TensorBoard(str(directory / "tensorboard"), write_graph=False),
            EpochLog(directory / HISTORY_FILE, epochs),
        ]
    return callbacks


def forget_epochs_after(path: Path, epoch: int) -> None:
    """Drops the rows of epochs that a restart will run again."""
    if path.exists():
        rows = [line for line in path.read_text(encoding="utf-8").splitlines() if json.loads(line)["epoch"] <= epoch]
        path.write_text("".join(f"{line}\n" for line in rows), encoding="utf-8")
