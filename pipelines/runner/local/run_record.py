"""What a local run did: its parameters and its steps, as `run.json` in its folder. The report is made from it."""

import json
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from kfp_image_classification.components.contracts.model_card import ModelCard, read_model_card
from kfp_image_classification.components.deploy.endpoint import ENDPOINT_FILE, Endpoint
from kfp_image_classification.components.select.leaderboard import Leaderboard
from kfp_image_classification.components.step.whole_file import write_whole
from kfp_image_classification.components.train.attempts import Restart

RECORD_FILE = "run.json"

SHORT_SECONDS = 0.5

State = Literal["waiting", "running", "done", "cached", "failed", "skipped"]


class Step(BaseModel):
    """One step of a run.

    Attributes:
        stage: Name of the task in the pipeline.
        model: The model variant; empty for steps that all models share.
        state: `cached` when its outputs were taken over from an earlier run; `skipped` when it was not reached.
        started: Seconds from the run's start to the step's.
        seconds: How long it took from the start of its process.
        folder: Where its outputs lie: in an earlier run's folder when they come from the cache.
        last_lines: The end of what it printed.
    """

    stage: str
    model: str = ""
    state: State = "waiting"
    started: float | None = None
    seconds: float | None = None
    folder: Path | None = None
    last_lines: list[str] = Field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.stage} {self.model}".strip()

    @property
    def phases(self) -> dict[str, float]:
        """Seconds of a training's phases, which add up to the step's: `other` is its own work and what is short."""
        phases: dict[str, float] = self._trained.get("seconds", {})
        if self.seconds is None or not phases:
            return {}
        long = {name: seconds for name, seconds in phases.items() if seconds > SHORT_SECONDS}
        return {**long, "other": max(0.0, self.seconds - sum(long.values()))}

    @property
    def restarts(self) -> list[Restart]:
        """Each restart of a training."""
        return [Restart(**restart) for restart in self._trained.get("restarts", [])]

    @property
    def _trained(self) -> dict[str, Any]:
        model = self.artifact("model") if self.stage == "train" else None
        metadata: dict[str, Any] = model["metadata"] if model else {}
        return metadata

    def artifact(self, name: str) -> dict[str, Any] | None:
        """An output as the step recorded it, with `uri` and `metadata`; None when the step did not come so far."""
        try:
            recorded = json.loads((self.folder or Path()).joinpath("executor_output.json").read_text(encoding="utf-8"))
            artifact: dict[str, Any] = recorded["artifacts"][name]["artifacts"][0]
        except (OSError, ValueError, KeyError):
            return None
        return artifact

    def path(self, name: str) -> Path | None:
        """Where an output lies; None when there is no such file."""
        artifact = self.artifact(name)
        path = Path(artifact["uri"]) if artifact else None
        return path if path and path.exists() else None


class Latency(BaseModel):
    """Answer times of the served model, measured by this machine on itself.

    Attributes:
        requests: How many were sent, one after the other, each with one image.
        p50: Median, in milliseconds.
        p90: 90th percentile, in milliseconds.
        p99: 99th percentile, in milliseconds.
        seconds: What the measurement took in all.
    """

    requests: int
    p50: float
    p90: float
    p99: float
    seconds: float


class RunRecord(BaseModel):
    """A finished run.

    Attributes:
        directory: The run's folder.
        started: Local time.
        seconds: Wall-clock time of all steps.
        parameters: Of the pipeline.
        steps: In the order of the pipeline.
        latency: Of the service, when there is one.
        failure: What KFP says of a failed run; empty for one that did not fail.
    """

    directory: Path
    started: datetime
    seconds: float
    parameters: dict[str, Any]
    steps: list[Step]
    latency: Latency | None = None
    failure: str = ""

    def step(self, stage: str, model: str = "") -> Step:
        """One of the steps; one that was skipped, where the pipeline has none of that name."""
        skipped = Step(stage=stage, model=model, state="skipped")
        return next((step for step in self.steps if (step.stage, step.model) == (stage, model)), skipped)

    @property
    def failed_steps(self) -> list[Step]:
        return [step for step in self.steps if step.state == "failed"]

    @property
    def what_failed(self) -> str:
        """The failed steps in words; KFP's own words where none is known; empty for a run that did not fail."""
        titles = " and ".join(step.title for step in self.failed_steps)
        return f"{titles} failed." if titles and self.failure else self.failure

    @property
    def restarts(self) -> list[str]:
        """A sentence about each training that started again; of steps from the cache an earlier run has told."""
        return [_restarts_of(step) for step in self.steps if step.restarts and step.state != "cached"]

    @cached_property
    def ranking(self) -> Leaderboard | None:
        """The leaderboard; None when the run did not come so far."""
        board = self.step("select").artifact("leaderboard")
        return Leaderboard.model_validate(board["metadata"]["ranking"]) if board else None

    @cached_property
    def watched(self) -> str:
        """What monitor found, in a sentence; empty in a pipeline that does not look, or did not come so far."""
        report = self.step("monitor").artifact("report")
        return str(report["metadata"].get("found", "")) if report else ""

    @cached_property
    def endpoint(self) -> Endpoint | None:
        """The deployed service; None when nothing was deployed."""
        folder = self.step("deploy").path("endpoint")
        return Endpoint.read(folder) if folder and (folder / ENDPOINT_FILE).exists() else None

    @cached_property
    def best_card(self) -> ModelCard | None:
        """Metadata of the selected model."""
        return read_model_card(self.ranking.best.uri) if self.ranking else None

    def write(self) -> None:
        write_whole(self.directory / RECORD_FILE, self.model_dump_json(indent=2))

    @classmethod
    def read(cls, directory: Path) -> "RunRecord":
        return cls.model_validate_json((directory / RECORD_FILE).read_text(encoding="utf-8"))


def _restarts_of(step: Step) -> str:
    times = "once" if len(step.restarts) == 1 else f"{len(step.restarts)} times"
    lost = sum(restart.seconds for restart in step.restarts)
    each = ", ".join(restart.words for restart in step.restarts)
    return f"{step.title} started again {times}, which cost {lost:.1f} s: {each}"
