"""What the pod of a part has on a cluster, as the compiled pipelines say it."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from repository import REPOSITORY

from kfp_image_classification.components.cluster.data_credentials import SECRET, VARIABLES
from kfp_image_classification.components.cluster.images import TENSORFLOW_IMAGE

Object = dict[str, Any]


@pytest.fixture(scope="module", params=["e2e", "retrain"])
def compiled(request: pytest.FixtureRequest) -> tuple[Object, Object]:
    """The pipeline, and what of it is Kubernetes' own."""
    text = (REPOSITORY / "compiled" / f"{request.param}.yaml").read_text(encoding="utf-8")
    pipeline, platform = yaml.safe_load_all(text)
    return pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def way_to(pipeline: Object, component: str) -> list[Object]:
    """The tasks from the pipeline's root to that of a component."""

    def below(dag: Object) -> Iterator[list[Object]]:
        for task in dag.get("dag", {}).get("tasks", {}).values():
            name = task["componentRef"]["name"]
            if name == component:
                yield [task]
            yield from ([task, *rest] for rest in below(pipeline["components"][name]))

    (way,) = below(pipeline["root"])
    return way


@pytest.mark.parametrize("step", ["list-parts", "ingest-part", "prepare-data", "ingest"])
def test_step_has_the_volume_of_the_run_and_the_credentials(step: str, compiled: tuple[Object, Object]) -> None:
    pipeline, executors = compiled
    own = executors[f"exec-{step}"]
    (mount,) = own["pvcMount"]
    *outer, _ = way_to(pipeline, f"comp-{step}")
    # The driver finds the claim's name among the inputs of the task's own DAG; so on, to the parameter of the run.
    name = mount["pvcNameParameter"]["componentInputParameter"]
    for task in reversed(outer):
        name = task["inputs"]["parameters"][name]["componentInputParameter"]
    assert (name, mount["mountPath"]) == ("pvc", "/mnt/storage")
    (secret,) = own["secretAsEnv"]
    assert (secret["secretName"], secret["optional"]) == (SECRET, True)
    assert {key["envVar"] for key in secret["keyToEnv"]} == set(VARIABLES)
    container = pipeline["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
    assert container["image"] == TENSORFLOW_IMAGE


def test_parts_run_side_by_side_and_again_when_they_fail(compiled: tuple[Object, Object]) -> None:
    _, condition, loop, part = way_to(compiled[0], "comp-ingest-part")
    assert part["retryPolicy"]["maxRetryCount"] == 2
    assert loop["parameterIterator"]["items"] == {"inputParameter": "pipelinechannel--list-parts-Output"}
    assert "iteratorPolicy" not in loop, "a limit of how many run at a time"
    assert condition["triggerPolicy"]["condition"] == (
        "int(inputs.parameter_values['pipelinechannel--ingest_parts']) > 1"
    )
    assert "parallel-ingest" in compiled[0]["root"]["dag"]["tasks"]["prepare-data"]["dependentTasks"]
