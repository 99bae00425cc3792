"""What a finished training job left in its folder, and what of it goes into the step's outputs."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kfp_image_classification.components.contracts.model_card import ModelCard, read_model_card
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.train.attempts import Restart, job_times
from kfp_image_classification.components.train.curves import curves_page
from kfp_image_classification.components.train.history import best_epoch, read_history
from kfp_image_classification.components.train.job_files import HISTORY_FILE, MODEL_DIRECTORY
from kfp_image_classification.components.train.worker.worker_report import WorkerReport

LOGGED = ("loss", "accuracy", "val_loss", "val_accuracy", "images_per_second")


@dataclass(frozen=True)
class TrainingResult:
    """What a finished job left.

    Attributes:
        card: The model's metadata.
        history: One row an epoch.
        seconds: Wall-clock seconds by phase, from the job's submission to its end, with all that restarts cost.
        restarts: Why the job started again, and what each time cost.
    """

    card: ModelCard
    history: list[dict[str, Any]]
    seconds: dict[str, float]
    restarts: list[Restart]

    @property
    def kept_epoch(self) -> dict[str, Any]:
        """The row of the epoch whose weights the model has."""
        options = self.card.options
        if options.get("keep") == "best":
            return dict(best_epoch(self.history, options["select_by"]))
        return self.history[-1]

    @property
    def outcome(self) -> tuple[float, int, int]:
        """Validation accuracy of the model, its epoch, and the number of epochs that were trained."""
        return self.kept_epoch["val_accuracy"], self.kept_epoch["epoch"], len(self.history)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the model artifact tells of its training."""
        return {
            "model_type": self.card.model_type,
            "parameters": self.card.parameters,
            "dataset_fingerprint": self.card.dataset_fingerprint,
            # KFP refuses metadata without a value, as there is of images in a model of an earlier version.
            **self.card.model_dump(include={"dataset", "dataset_images"}, exclude_none=True),
            "git_revision": self.card.git_revision,
            "run": self.card.run,
            "images_per_second": self.history[-1]["images_per_second"],
            "history": self.history,
            "epoch": self.kept_epoch["epoch"],
            "seconds": self.seconds,
            "restarts": [asdict(restart) for restart in self.restarts],
            **({"started_from": self.card.started_from.words} if self.card.started_from else {}),
        }

    def fill(self, model: Any, metrics: Any, curves: Any, **metadata: str) -> None:
        """Fills a step's outputs, all but the model's files.

        Args:
            model: dsl.Model.
            metrics: dsl.Metrics.
            curves: dsl.HTML.
            **metadata: What else the model artifact is to tell.
        """
        for name in LOGGED:
            metrics.log_metric(name, self.kept_epoch[name])
        # kfp.local takes an output without a file for lost, and would never use the step's cached results.
        Path(metrics.path).write_text(json.dumps(metrics.metadata), encoding="utf-8")
        Path(curves.path).write_text(
            curves_page(self.card.model_type, self.history, self.kept_epoch["epoch"]), encoding="utf-8"
        )
        model.framework = "tensorflow"
        model.metadata.update({**self.metadata, **metadata})


def read_result(directory: str, workers: int, patience: float, submitted: float | None = None) -> TrainingResult:
    """Reads and checks the results of a finished job.

    Args:
        directory: The job's folder.
        workers: How many workers the job had.
        patience: Seconds to wait until everything can be seen here.
        submitted: When the job was submitted, in seconds of the Unix clock; None where that is not known.

    Raises:
        StageFailed: When a worker left no report, the workers' weights differ, or there is no model or no history.
    """
    trained = Path(directory, MODEL_DIRECTORY)
    paths = [WorkerReport.path(directory, index) for index in range(workers)]
    deadline = time.monotonic() + patience
    while not all(path.exists() for path in [trained, *paths]) and time.monotonic() < deadline:
        time.sleep(0.5)
    reports = [_report(path) for path in paths]
    if len({report.weights_sha256 for report in reports}) != 1:
        raise StageFailed("the workers ended with different weights: they were not in step")
    if not trained.is_dir():
        raise StageFailed(f"the job is done, but there is no model in {trained}")
    history = read_history(Path(directory, HISTORY_FILE))
    if not history:
        raise StageFailed(f"the job is done, but there is no row in {Path(directory, HISTORY_FILE)}")
    times = job_times(Path(directory), submitted, None if submitted is None else time.time())
    return TrainingResult(read_model_card(trained), history, times.seconds, times.restarts)


def _report(path: Path) -> WorkerReport:
    try:
        return WorkerReport.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StageFailed(f"{path.stem} left no readable report in {path} ({error})") from None
