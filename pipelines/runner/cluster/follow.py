"""Tells how a run goes: each state of each step once, a training's epochs as they come, and a failure's own words."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from kfp_image_classification.pipelines.runner.cluster.run_api import RunApi
from kfp_image_classification.pipelines.runner.cluster.run_steps import (
    CACHED,
    FAILED,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    RunStep,
    run_steps,
    task_titles,
)

LAST_LINES = 5
TRAINING_TASK, RANKING_TASK = "train", "select"
_PROGRESS = re.compile(r"\[train [^\]]+\] (?:(?:worker|chief)-0 \| )?((?:epoch +\d+/|.*restart \d+ of ).*)")
_ERROR = re.compile(r"\[[^\]]+\] error: (.*)")
_STAGE_LINE = re.compile(r"\[select\] (.*\S)")
_STATES = {"RUNNING": RUNNING, "SUCCEEDED": SUCCEEDED, "FAILED": FAILED, "SKIPPED": SKIPPED, "CANCELED": "canceled"}


class RunFollower:
    """Follows one run, a look at a time."""

    def __init__(self, api: RunApi, tell: Callable[[str], None]) -> None:
        self._api, self._tell = api, tell
        self._namespace = ""
        self._states: dict[str, str] = {}
        self._lines_told: dict[str, int] = {}
        self.failures: dict[str, str] = {}
        self._ranking_pod = ""

    def look(self, run: Any) -> bool:
        """Tells what is new; returns whether anything is.

        Args:
            run: The run, as kfp's client gives it.
        """
        steps, is_new = self._steps(run), False
        for step in steps:
            before = self._states.get(step.title)
            if step.task == RANKING_TASK:
                self._ranking_pod = step.pod
            if step.task == TRAINING_TASK and step.pod and before in (None, RUNNING):
                if before is None and step.state != CACHED:
                    is_new = self._tell_state(step, RUNNING) or is_new
                is_new = self._tell_progress(step) or is_new
            if step.state == FAILED and before != FAILED:
                self._tell_failure(step)
                is_new = True
            else:
                is_new = self._tell_state(step, step.state) or is_new
        return is_new

    def ranking_lines(self) -> list[str]:
        """What select said of the models."""
        lines = self._api.log(self._ranking_pod, self._namespace) if self._ranking_pod else []
        found = [match[1] for match in map(_STAGE_LINE.match, lines) if match]
        return [line for line in found if not line.startswith(("took ", "error: "))]

    def _steps(self, run: Any) -> list[RunStep]:
        given = run.pipeline_spec or {}
        spec = given.get("pipeline_spec", given)
        if "root" not in spec:  # a run of an uploaded pipeline refers to it
            return []
        workflow = self._api.workflow() if self._api.has_workflows else None
        if workflow:
            self._namespace = workflow["metadata"].get("namespace", "")
            parameters = (run.runtime_config and run.runtime_config.parameters) or {}
            return run_steps(workflow, spec, parameters)
        return [] if self._api.has_workflows else _listed_steps(run, spec)

    def _tell_state(self, step: RunStep, state: str) -> bool:
        if self._states.get(step.title) == state:
            return False
        self._states[step.title] = state
        self._tell(f"[{step.title}] {state}")
        return True

    def _tell_progress(self, step: RunStep) -> bool:
        found = [match[1] for match in map(_PROGRESS.match, self._api.log(step.pod, self._namespace)) if match]
        # A step that is started again has a new pod, and a log from its beginning.
        fresh = found[self._lines_told.get(step.pod, 0) :]
        self._lines_told[step.pod] = max(len(found), self._lines_told.get(step.pod, 0))
        for line in fresh:
            self._tell(f"[{step.title}] {line}")
        return bool(fresh)

    def _tell_failure(self, step: RunStep) -> None:
        lines = self._api.log(step.pod, self._namespace) if step.pod else []
        errors = [match[1] for match in map(_ERROR.match, lines) if match]
        words = errors or ([step.message] if step.message else []) + lines[-LAST_LINES:]
        self.failures[step.title] = words[0] if words else ""
        self._states[step.title] = FAILED
        self._tell(f"[{step.title}] failed" + (f": {words[0]}" if words else ""))
        for line in words[1:]:
            self._tell(f"[{step.title}]   {line}")


def _listed_steps(run: Any, spec: Mapping[str, Any]) -> list[RunStep]:
    """The steps of a server that does not show the workflow: without their items, and without their pods.

    The API lists all nodes by the names that Argo shows (toApiPipelineTaskDetail in api_converter.go).
    """
    titles, count, steps = task_titles(spec), dict[str, int](), list[RunStep]()
    details = (run.run_details and run.run_details.task_details) or []
    for task in sorted(details, key=lambda task: str(task.start_time or task.create_time or "")):
        name, state = task.display_name or "", _STATES.get(str(task.state))
        if name in titles and state:
            count[name] = count.get(name, 0) + 1
            number = f" {count[name]}" if count[name] > 1 else ""
            steps.append(RunStep(f"{titles[name]}{number}", name, state))
    return steps
