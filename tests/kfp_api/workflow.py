"""The Argo workflow behind a run, as Kubeflow Pipelines 2.17 makes it of a pipeline, as far as a client sees it.

Names and structure: backend/src/v2/compiler/argocompiler/dag.go and container.go of kubeflow/pipelines at 2.17.0. Its
workflow-controller-configmap gives every template a retryStrategy, so that each node has an attempt `(0)` below it.
"""

import zlib
from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]
NAMESPACE = "kubeflow"
# A state of a task in a test, and the phase of its Argo node.
PHASES = {
    "PENDING": "Pending",
    "RUNNING": "Running",
    "SUCCEEDED": "Succeeded",
    "CACHED": "Succeeded",
    "FAILED": "Failed",
    "CANCELED": "Failed",
    "SKIPPED": "Skipped",
}


def workflow(name: str, spec: Object, tasks: dict[str, str], messages: dict[str, str]) -> Object:
    """Makes a workflow with its status.

    Args:
        name: Of the workflow.
        spec: The compiled pipeline.
        tasks: State by task; `train#2` is the second turn of the loop that train is in.
        messages: What Argo says, by task.
    """
    nodes: dict[str, Object] = {}

    def add(path: str, phase: str, kind: str, template: str, message: str = "") -> None:
        identifier = f"{name}-{zlib.crc32(path.encode())}"
        nodes[identifier] = {
            "id": identifier,
            "name": path,
            "displayName": path.rsplit(".", 1)[-1],
            "type": kind,
            "templateName": template,
            "phase": phase,
            "startedAt": f"2026-11-26T12:00:{len(nodes):02d}Z" if len(nodes) < 60 else "2026-11-26T12:01:00Z",
            **({"message": message} if message else {}),
        }

    add(name, "Running", "Retry", "entrypoint")
    add(f"{name}(0).root-driver", "Succeeded", "Retry", "system-dag-driver")
    add(f"{name}(0).root-driver(0)", "Succeeded", "Pod", "system-dag-driver")
    add(f"{name}(0).root", "Running", "Retry", "root")
    for key, state in tasks.items():
        task, _, number = key.partition("#")
        path = f"{name}(0)" + "".join(f".{part}(0)" for part in _way_to(spec, task, int(number or 1) - 1))
        if "iteration-item" in path:
            loop = path[: path.index(".iteration-iterations")]
            add(f"{loop}.iteration-driver", "Succeeded", "Retry", "system-dag-driver")
            add(f"{loop}.iteration-driver(0)", "Succeeded", "Pod", "system-dag-driver")
            add(path.replace("iteration-item(0)", "iteration-item-driver(0)"), "Succeeded", "Pod", "system-dag-driver")
            add(path, "Running", "DAG", "comp-for-loop-1")
        driver = f"{path}.{task}-driver"
        add(driver, "Succeeded", "Retry", "system-container-driver")
        add(f"{driver}(0)", "Succeeded", "Pod", "system-container-driver")
        phase, message = PHASES[state], messages.get(key, "")
        add(f"{path}.{task}", phase, "Retry", "system-container-executor")
        add(f"{path}.{task}(0)", phase, "DAG", "system-container-executor")
        if state == "CACHED":
            add(f"{path}.{task}(0).executor", "Skipped", "Skipped", "system-container-impl")
        elif phase != "Skipped":
            add(f"{path}.{task}(0).executor", phase, "Retry", "system-container-impl", message)
            add(f"{path}.{task}(0).executor(0)", phase, "Pod", "system-container-impl", message)
    return {"metadata": {"name": name, "namespace": NAMESPACE}, "status": {"nodes": nodes}}


def pods(found: Object) -> dict[str, str]:
    """The names of the executors' pods, by the names of their nodes."""
    name = found["metadata"]["name"]
    return {
        node["name"]: f"{name}-{node['templateName']}-{node['id'].rsplit('-', 1)[-1]}"
        for node in found["status"]["nodes"].values()
        if node["type"] == "Pod" and node["templateName"] == "system-container-impl"
    }


def _way_to(spec: Object, wanted: str, turn: int) -> list[str]:
    """The nodes around a task, from the root on."""

    def search(component: Object) -> Iterator[list[str]]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            if name == wanted:
                yield []
                continue
            loop = [f"iteration-iterations({turn}:{turn})", "iteration-item"] if "parameterIterator" in task else []
            for inner in search(spec["components"][task["componentRef"]["name"]]):
                yield [name, *loop, *inner]

    return ["root", *next(search(spec["root"]))]
