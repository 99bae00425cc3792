"""How far a local run is: the states of its steps, from what kfp.local and the steps print while they run."""

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp_image_classification.pipelines.runner.local.run_record import State, Step

LAST_LINES = 20
# Seldom have they much to do here, or anything to show.
IN_THE_BACKGROUND = (
    "preflight",
    "prepare-data",
    "list-parts",
    "find-champion",
    "find-new-data",
    "measure-champion",
)

_EXECUTING = re.compile(r"Executing task '([\w-]+)'")
_CACHED = re.compile(r"Task ([\w-]+) cache hit \(key=(\w+)\)")
_FAILED = re.compile(r"Task '[\w-]+' finished with status FAILURE")
_STAGE_LINE = re.compile(r"\[([\w-]+)(?: [^\]]+)?\] (.*)")
_TOOK = re.compile(r"took ([\d.]+) s$")
# What KFP adds to a name that a step of the same run has already; the step itself does not know of it.
_AGAIN = re.compile(r"-\d+$")
# In what KFP's executor tells of its input, as JSON: where the step is to describe its outputs.
_OUTPUT_FILE = re.compile(r'"outputFile": ("(?:[^"\\]|\\.)*")')
_EPOCH_SIZE = re.compile(r"worker-0 \| .* (\d+) steps an epoch, global batch (\d+)")
# Of no use to a person: KFP's executor about itself, and what TensorFlow says on every start.
_CHATTER = re.compile(
    r"\[KFP Executor [^\]]*INFO\]|\d\d:\d\d:\d\d\.\d+ - INFO|[IWE]\d{4} \d\d:\d\d|WARNING: All log messages before absl"
)
_COLOURS = re.compile(r"\x1b\[\d+m")


@dataclass
class RunningStep:
    """A step while the run goes on; times are of `time.monotonic`."""

    stage: str
    model: str
    state: State = "waiting"
    started: float | None = None
    seconds: float | None = None
    folder: Path | None = None
    told: str = ""
    tells_input: bool = True
    epoch_size: tuple[int, int] | None = None  # steps, images in a step
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))

    @property
    def title(self) -> str:
        return f"{self.stage} {self.model}".strip()


class Progress:
    """The steps of one run. Lines come from several threads: kfp.local runs each iteration of a loop in its own."""

    def __init__(
        self,
        models: Sequence[str],
        cache: Path,
        on_start: Callable[[RunningStep], None] = lambda step: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Expects the steps of the pipeline in `pipelines/e2e.py`.

        Args:
            models: The pipeline's parameter, in its order.
            cache: Folder of kfp.local's cache entries.
            on_start: Called when a step has started.
            clock: Seconds.
        """
        self.models = list(models)
        self.started = clock()
        self._cache = cache
        self._on_start = on_start
        self._clock = clock
        self._lock = threading.Lock()
        self._in_thread: dict[int, RunningStep | None] = {}
        self._model_in_thread: dict[int, str] = {}
        self._starting: dict[int, tuple[str, float]] = {}
        loop: list[tuple[str, str]] = [(stage, model) for model in models for stage in ("train", "evaluate")]
        shared: list[tuple[str, str]] = [("ingest", ""), *loop, ("select", ""), ("deploy", "")]
        self.steps = [RunningStep(stage, model) for stage, model in shared]

    def take(self, line: str, thread: int) -> str | None:
        """Learns from one line of output.

        Args:
            line: Without the line's end.
            thread: Identifies the thread that printed it.

        Returns:
            What a person should be told; None for what is only of use in the log.
        """
        line = _COLOURS.sub("", line).strip()
        with self._lock:
            if cached := _CACHED.search(line):
                return self._take_cached(cached[1], cached[2], thread)
            if executing := _EXECUTING.search(line):
                self._in_thread[thread] = None
                self._starting[thread] = (executing[1], self._clock())
            elif thread in self._starting:
                self._place(line, thread)
            elif step := self._in_thread.get(thread):
                if _FAILED.search(line):
                    step.state, step.seconds = "failed", self._clock() - (step.started or self._clock())
                    self._in_thread[thread] = None
                    return None
                return self._take_step_line(step, line)
            return None

    def find(self, stage: str, model: str) -> RunningStep | None:
        return next((step for step in self.steps if (step.stage, step.model) == (stage, model)), None)

    def unexplained(self) -> list[RunningStep]:
        """Steps that failed without a word about why: their last lines are all that can be told."""
        return [step for step in self.steps if step.state == "failed" and not step.told.startswith("error: ")]

    def finished(self) -> list[Step]:
        """The steps after the run's end, without those that seldom have much to do here."""
        with self._lock:
            finished = [self._finished(step) for step in self.steps]
        return [step for step in finished if step.state == "failed" or step.stage not in IN_THE_BACKGROUND]

    def _take_cached(self, stage: str, key: str, thread: int) -> str:
        self._in_thread[thread] = None
        stage, model = _AGAIN.sub("", stage), ""
        entry = next(self._cache.glob(f"{key}*.json"), None)
        outputs: dict[str, Any] = json.loads(entry.read_text(encoding="utf-8")) if entry else {}
        if stage == "train" and outputs:
            self._model_in_thread[thread] = outputs["model"]["metadata"]["model_type"]
        if stage in ("train", "evaluate"):  # an iteration's steps run in one thread, train first
            model = self._model_in_thread.get(thread, "")
        if step := self.find(stage, model):
            step.state = "cached"
            uris = [output["uri"] for output in outputs.values() if isinstance(output, dict) and "uri" in output]
            step.folder = Path(uris[0]).parent if uris else None
        return f"[{f'{stage} {model}'.strip()}] taken over from an earlier run with the same parameters"

    def _place(self, line: str, thread: int) -> None:
        """Finds out which step a thread has started: its outputs are the first thing that it tells of itself."""
        task, started = self._starting[thread]
        stage = _AGAIN.sub("", task)
        if _FAILED.search(line) and (step := self.find(stage, self._model_in_thread.get(thread, ""))):
            step.state, step.started = "failed", started
        told = _OUTPUT_FILE.match(line)
        if not told:
            return
        folder = Path(json.loads(told[1])).parent
        if folder.name != task:  # a parameter of the step that happens to have this name
            return
        iteration = re.search(r"-iteration-(\d+)$", folder.parent.name)
        model = self._of_iteration(stage, int(iteration[1])) if iteration else ""
        step = self.find(stage, model)
        if step is None:
            self.steps.append(step := RunningStep(stage, model))
        step.state, step.started, step.folder = "running", started, folder
        step.seconds, step.tells_input = None, True  # it may have run before, as another task
        step.lines.clear()
        self._in_thread[thread] = step
        self._model_in_thread[thread] = model
        del self._starting[thread]
        self._on_start(step)

    def _of_iteration(self, stage: str, iteration: int) -> str:
        return f"{iteration + 1}" if stage == "ingest-part" else self.models[iteration]

    def _take_step_line(self, step: RunningStep, line: str) -> str | None:
        if step.tells_input:  # JSON, several lines of it
            step.tells_input = line.startswith(('"', "{", "}", "]"))
        if line and not step.tells_input and not _CHATTER.match(line):
            step.lines.append(line)
        told = _STAGE_LINE.match(line)
        if not told or told[1] != step.stage:
            return None
        if took := _TOOK.match(told[2]):
            step.state, step.seconds = "done", float(took[1])
            return None
        if told[2].startswith("spent "):
            return None
        step.told = told[2]
        if size := _EPOCH_SIZE.match(step.told):
            step.epoch_size = (int(size[1]), int(size[2]))
        return line

    def _finished(self, step: RunningStep) -> Step:
        ends: dict[State, State] = {"running": "failed", "waiting": "skipped"}
        return Step(
            stage=step.stage,
            model=step.model,
            state=ends.get(step.state, step.state),
            started=None if step.started is None else step.started - self.started,
            seconds=step.seconds,
            folder=step.folder,
            last_lines=list(step.lines) if ends.get(step.state, step.state) == "failed" else [],
        )
