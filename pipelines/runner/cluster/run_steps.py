"""The steps of a run as the pipeline names them, read from the Argo workflow that runs it. Pure.

Kubeflow Pipelines compiles a pipeline to a workflow with nodes of its own around each step: drivers, loops, executors,
and a node for each attempt (backend/src/v2/compiler/argocompiler of kubeflow/pipelines 2.17.0: dag.go and container.go;
the attempts come of `templateDefaults.retryStrategy` in its workflow-controller-configmap). A step's node has a name
like `WORKFLOW.root.for-loop-1.iteration-iterations(0:0).iteration-item.train`, and its pod is `.executor(0)` below it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]
RUNNING, SUCCEEDED, CACHED, FAILED, SKIPPED = "running", "succeeded", "taken from the cache", "failed", "skipped"
# Phases of an Argo node; Omitted is one that waited for a step that failed.
_STATES = {
    "Running": RUNNING,
    "Succeeded": SUCCEEDED,
    "Failed": FAILED,
    "Error": FAILED,
    "Skipped": SKIPPED,
}
_ITERATIONS = re.compile(r"iteration-iterations\((\d+):")
_ATTEMPT = re.compile(r"\(\d+\)$")
_EXECUTOR, _DRIVER = "executor", "-driver"


@dataclass(frozen=True)
class RunStep:
    """One step of a run, one of a loop's for each item.

    Attributes:
        title: Its display name, and the items of the loops that it is in.
        task: Its name in the pipeline.
        state: In a word, for a person.
        pod: The pod of its last attempt; empty before there is one.
        message: What Argo says of a failure.
    """

    title: str
    task: str
    state: str
    pod: str = ""
    message: str = ""


def run_steps(workflow: Object, spec: Object, parameters: Object) -> list[RunStep]:
    """Reads the steps of a run in the order in which they started.

    Args:
        workflow: The Argo workflow, with its status.
        spec: The compiled pipeline.
        parameters: What the run was given; for the others the pipeline's defaults hold.
    """
    nodes = sorted(
        (workflow.get("status") or {}).get("nodes", {}).values(), key=lambda node: str(node.get("startedAt"))
    )
    found: dict[str, RunStep] = {}
    for node in sorted(nodes, key=_depth):
        place = _place(node["name"], spec, parameters)
        state = _STATES.get(node.get("phase", ""))
        if place is None or state is None:
            continue
        title, task, rest = place
        known = found.get(title)
        pod = pod_name(workflow, node) if node.get("type") == "Pod" else ""
        message = node.get("message", "") if state == FAILED else ""
        if rest == _DRIVER:
            if state == FAILED:
                found[title] = RunStep(title, task, FAILED, pod, message)
        elif not rest and known is None:
            found[title] = RunStep(title, task, state, message=message)
        elif rest and known:
            cached = state == SKIPPED and known.state == SUCCEEDED
            found[title] = RunStep(
                title, task, CACHED if cached else known.state, pod or known.pod, message or known.message
            )
    started = {title: index for index, title in reversed([*enumerate(_titles(nodes, spec, parameters))])}
    return sorted(found.values(), key=lambda step: started[step.title])


def task_titles(spec: Object) -> dict[str, str]:
    """The display names of all steps, by their names in the pipeline."""
    return {
        name: _display_name(name, task)
        for part in (spec["root"], *spec["components"].values())
        for name, task in part.get("dag", {}).get("tasks", {}).items()
        if _is_step(spec, task)
    }


def pod_name(workflow: Object, node: Object) -> str:
    """The name of a node's pod: RetrievePodName in backend/src/common/util/workflow.go of kubeflow/pipelines."""
    metadata = workflow["metadata"]
    if (metadata.get("annotations") or {}).get("workflows.argoproj.io/pod-name-format") == "v1":
        return str(node["id"])
    return f"{metadata['name']}-{node.get('templateName', '')}-{str(node['id']).rsplit('-', 1)[-1]}"


def _titles(nodes: list[Any], spec: Object, parameters: Object) -> list[str]:
    places = (_place(node["name"], spec, parameters) for node in nodes)
    return [place[0] for place in places if place]


def _depth(node: Object) -> tuple[int, int]:
    """Outer nodes before inner ones, and a node before its attempts."""
    return node["name"].count("."), len(node["name"])


def _place(name: str, spec: Object, parameters: Object) -> tuple[str, str, str] | None:
    """Title and task of the step to which a node belongs, and what the node is in it: empty for the step itself."""
    inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    values = {key: value.get("defaultValue") for key, value in inputs.items()} | dict(parameters)
    component, task, items = spec["root"], None, list[str]()
    segments = [_without_attempts(segment) for segment in name.split(".")[1:]]
    if segments[:1] != ["root"]:
        return None
    for position, segment in enumerate(segments[1:], 1):
        if iteration := _ITERATIONS.match(segment):
            index = int(iteration[1])
            if task is not None:
                values, item = _with_item(task, values, index)
                items.append(item)
            continue
        if segment == "iteration-item":
            continue
        tasks = component.get("dag", {}).get("tasks", {})
        step = segment.removesuffix(_DRIVER)
        if segment not in tasks:
            if step in tasks and _is_step(spec, tasks[step]):
                return _title(step, tasks[step], items), step, _DRIVER
            return None
        task = tasks[segment]
        if _is_step(spec, task):
            return _title(segment, task, items), segment, ".".join(segments[position + 1 :])
        values = _inputs(task, values)
        component = spec["components"][task["componentRef"]["name"]]
    return None


def _without_attempts(segment: str) -> str:
    while _ATTEMPT.search(segment):
        segment = _ATTEMPT.sub("", segment)
    return segment


def _is_step(spec: Object, task: Object) -> bool:
    return "executorLabel" in spec["components"][task["componentRef"]["name"]]


def _display_name(name: str, task: Object) -> str:
    return str(task.get("taskInfo", {}).get("name") or name)


def _title(name: str, task: Object, items: list[str]) -> str:
    return " ".join([_display_name(name, task), *items])


def _inputs(task: Object, values: Object) -> dict[str, Any]:
    """The parameters inside a task's component, as far as they are known before it runs."""
    found: dict[str, Any] = {}
    for name, given in task.get("inputs", {}).get("parameters", {}).items():
        if "componentInputParameter" in given:
            found[name] = values.get(given["componentInputParameter"])
        elif "runtimeValue" in given:
            found[name] = given["runtimeValue"].get("constant")
    iterator = task.get("parameterIterator", {})
    source = iterator.get("items", {})
    if "raw" in source:
        found[iterator["itemInput"]] = json.loads(source["raw"])
    elif source.get("inputParameter") in found and "itemInput" in iterator:
        found[iterator["itemInput"]] = found[source["inputParameter"]]
    return found


def _with_item(task: Object, values: Object, index: int) -> tuple[dict[str, Any], str]:
    """The parameters in one turn of a loop, and its item in words: its number where the item is not known."""
    name = task.get("parameterIterator", {}).get("itemInput", "")
    items = values.get(name)
    if not isinstance(items, list) or index >= len(items) or isinstance(items[index], dict | list):
        return dict(values), str(index + 1)
    return {**values, name: items[index]}, str(items[index])
