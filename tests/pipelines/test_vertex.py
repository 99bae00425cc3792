"""The Vertex AI pipeline, as far as it can be tried without Google Cloud.

What it hands to Google's components is compared with their own specifications, what these would send is parsed as
messages of Vertex' API, and the worker pools are started as processes with TF_CONFIG as Vertex sets it.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import yaml
from google.cloud.aiplatform_v1.types import CustomJob, DeployModelRequest, Endpoint, Model
from google.protobuf import json_format
from google_cloud_pipeline_components.container.v1.gcp_launcher.utils.json_util import recursive_remove_empty
from google_cloud_pipeline_components.container.v1.model.upload_model.remote_runner import (
    append_unmanaged_model_artifact_into_payload,
)
from google_cloud_pipeline_components.v1.custom_job import CustomTrainingJobOp
from google_cloud_pipeline_components.v1.endpoint import EndpointCreateOp, ModelDeployOp
from google_cloud_pipeline_components.v1.model import ModelUploadOp
from kfp import dsl, local
from repository import REPOSITORY

from kfp_image_classification.components.cluster import images
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.deploy.vertex import servable_uri
from kfp_image_classification.components.train.custom_job import Machine, worker_pool_specs
from kfp_image_classification.components.train.launchers.machine import free_ports
from kfp_image_classification.components.train.options import TrainingJob
from kfp_image_classification.components.train.vertex import collect_custom_job, plan_custom_job
from kfp_image_classification.components.train.worker.tf_config import cluster_from_environment
from kfp_image_classification.pipelines.vertex import vertex

IR = yaml.safe_load((REPOSITORY / "compiled" / "vertex.yaml").read_text())
GOOGLE = {
    "custom-training-job": CustomTrainingJobOp,
    "model-upload": ModelUploadOp,
    "endpoint-create": EndpointCreateOp,
    "model-deploy": ModelDeployOp,
}
KINDS = {
    "STRING": str,
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}


def dags() -> list[dict[str, Any]]:
    """The root and every nested group of tasks, each with the inputs that it declares itself."""
    return [component for component in [IR["root"], *IR["components"].values()] if "dag" in component]


def google_tasks() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, task and enclosing group of every task that Google's components run."""
    return [
        (name, task, dag)
        for dag in dags()
        for name, task in dag["dag"]["tasks"].items()
        if task["componentRef"]["name"].removeprefix("comp-") in GOOGLE
    ]


def specification(component: Any) -> dict[str, Any]:
    spec: dict[str, Any] = json_format.MessageToDict(component.pipeline_spec)
    (component_spec,) = spec["components"].values()
    return component_spec


def declared(task: dict[str, Any], kind: str, name: str, direction: str = "inputDefinitions") -> dict[str, Any]:
    component = IR["components"][task["componentRef"]["name"]]
    definition: dict[str, Any] = component[direction][kind][name]
    return definition


def source(binding: dict[str, Any], kind: str, dag: dict[str, Any]) -> dict[str, Any]:
    """Declaration of whatever feeds an input: an input of the enclosing group, or another task's output."""
    for key in ("componentInputParameter", "componentInputArtifact"):
        if key in binding:
            definition: dict[str, Any] = dag["inputDefinitions"][kind][binding[key]]
            return definition
    produced = binding.get("taskOutputParameter") or binding["taskOutputArtifact"]
    producer = dag["dag"]["tasks"][produced["producerTask"]]
    output = produced.get("outputParameterKey") or produced["outputArtifactKey"]
    return declared(producer, kind, output, "outputDefinitions")


def test_each_of_googles_components_is_used_once() -> None:
    assert sorted(name for name, _, _ in google_tasks()) == sorted(GOOGLE)


@pytest.mark.parametrize("name", GOOGLE)
def test_component_is_googles_own(name: str) -> None:
    assert IR["components"][f"comp-{name}"] == {
        **specification(GOOGLE[name]),
        "executorLabel": f"exec-{name}",
    }


@pytest.mark.parametrize(("name", "task", "dag"), google_tasks(), ids=[name for name, _, _ in google_tasks()])
def test_inputs_are_those_that_googles_component_declares(name: str, task: dict[str, Any], dag: dict[str, Any]) -> None:
    inputs = specification(GOOGLE[name])["inputDefinitions"]
    for kind in ("parameters", "artifacts"):
        given = task["inputs"].get(kind, {})
        known = inputs.get(kind, {})
        required = {key for key, value in known.items() if not value.get("isOptional") and "defaultValue" not in value}
        assert required <= set(given) <= set(known)
        for key, binding in given.items():
            if "runtimeValue" in binding:
                assert isinstance(binding["runtimeValue"]["constant"], KINDS[known[key]["parameterType"]]), key
            elif kind == "parameters":
                assert source(binding, kind, dag)["parameterType"] == known[key]["parameterType"], key
            else:
                assert source(binding, kind, dag)["artifactType"] == known[key]["artifactType"], key


def test_nothing_is_uploaded_or_deployed_outside_the_gate() -> None:
    gates = [
        task["componentRef"]["name"]
        for dag in dags()
        for task in dag["dag"]["tasks"].values()
        if "condition" in task.get("triggerPolicy", {})
    ]
    (gate,) = gates
    behind = {name for name, _, dag in google_tasks() if dag is IR["components"][gate]}
    assert behind == {"model-upload", "endpoint-create", "model-deploy"}


def payload(name: str, **values: Any) -> dict[str, Any]:
    """What one of Google's components would send: its arguments with defaults, constants and values filled in."""
    (task,) = (task for found, task, _ in google_tasks() if found == name)
    spec = specification(GOOGLE[name])
    known = spec["inputDefinitions"]["parameters"]
    given = {key: definition["defaultValue"] for key, definition in known.items() if "defaultValue" in definition}
    for key, binding in task["inputs"]["parameters"].items():
        if "runtimeValue" in binding:
            given[key] = binding["runtimeValue"]["constant"]
    given |= values
    args = IR["deploymentSpec"]["executors"][f"exec-{name}"]["container"]["args"]
    template = args[args.index("--payload") + 1]
    if not isinstance(template, str):
        template = json.dumps(template)
    if '"Concat"' in template:
        template = "".join(json.loads(template)["Concat"])

    def filled(match: re.Match[str]) -> str:
        value = given.get(match[1], "")
        if known[match[1]]["parameterType"] == "NUMBER_INTEGER":
            value = int(value)  # the IR keeps all numbers as floating point
        return value if isinstance(value, str) else json.dumps(value)

    text = re.sub(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}", filled, template)
    result: dict[str, Any] = recursive_remove_empty(json.loads(text, strict=False))
    return result


@dsl.pipeline(name="plan")
def plan(shards_uri: str) -> list:
    """What the step before the CustomJob decides for two machines with a GPU each."""
    shards = dsl.importer(artifact_uri=shards_uri, artifact_class=dsl.Dataset)
    planned = plan_custom_job(
        shards=shards.output,
        model_type="cnn_small",
        workers=2,
        epochs=1,
        learning_rates="0:1e-3",
        machine_type="g2-standard-8",
        accelerator_type="NVIDIA_L4",
        run="run-7",
    )
    return planned.outputs["Output"]


class Collected(NamedTuple):
    model: dsl.Model
    metrics: dsl.Metrics
    curves: dsl.HTML
    servable: str


@dsl.pipeline(name="collect")
def collect(job_uri: str, shards_uri: str) -> Collected:
    """What the steps after the CustomJob make of it."""
    job = dsl.importer(artifact_uri=job_uri, artifact_class=dsl.Artifact)
    shards = dsl.importer(artifact_uri=shards_uri, artifact_class=dsl.Dataset)
    collected = collect_custom_job(job=job.output, shards=shards.output, workers=2)
    servable = servable_uri(model=collected.outputs["model"])
    return Collected(
        collected.outputs["model"], collected.outputs["metrics"], collected.outputs["curves"], servable.output
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vertex")
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(folder))
    return folder


@pytest.fixture(scope="module")
def planned(folder: Path, digits: Dataset) -> SimpleNamespace:
    specs = plan(shards_uri=str(digits.directory)).outputs["Output"]
    job = TrainingJob.model_validate_json(specs[0]["container_spec"]["args"][1])
    return SimpleNamespace(specs=specs, job=job)


def test_custom_job_is_a_chief_and_the_other_workers(planned: SimpleNamespace) -> None:
    # kfp.local reads all numbers as floating point. That Vertex writes whole ones without a point was not tried.
    specs = json.loads(json.dumps(planned.specs), parse_float=lambda text: int(float(text)))
    job = CustomJob(payload("custom-training-job", display_name="cnn", worker_pool_specs=specs)).job_spec
    assert [pool.replica_count for pool in job.worker_pool_specs] == [1, 1]
    assert job.scheduling.restart_job_on_worker_restart
    for pool in job.worker_pool_specs:
        assert pool.machine_spec.machine_type == "g2-standard-8"
        assert pool.machine_spec.accelerator_type.name == "NVIDIA_L4"
        assert pool.machine_spec.accelerator_count == 1
        assert pool.container_spec.image_uri == images.TENSORFLOW_GPU_IMAGE


@pytest.mark.parametrize(
    ("image", "accelerator", "expected", "devices", "gpus"),
    [
        ("", "", images.TENSORFLOW_IMAGE, "cpu", 0),
        ("", "NVIDIA_L4", images.TENSORFLOW_GPU_IMAGE, "gpu", 2),
        ("own:1", "NVIDIA_L4", "own:1", "gpu", 2),
    ],
)
def test_workers_are_told_of_their_gpus(
    image: str, accelerator: str, expected: str, devices: str, gpus: int, planned: SimpleNamespace
) -> None:
    machine = Machine(image=image, machine_type="a", accelerator_type=accelerator, accelerator_count=2)
    for pool in worker_pool_specs(planned.job, machine):
        container = pool["container_spec"]
        job = TrainingJob.model_validate_json(container["args"][1])
        assert (container["image_uri"], job.options.devices, job.gpus) == (expected, devices, gpus)


def test_a_machine_that_lacks_its_gpu_fails_at_once(planned: SimpleNamespace) -> None:
    """Here there is none; instead of training on the CPU for a day, with a bill for the GPU."""
    container = planned.specs[0]["container_spec"]
    ended = subprocess.run(
        [sys.executable, *container["command"][1:], *container["args"]], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2, "permanent"
    last = ended.stdout.splitlines()[-1]
    assert last.startswith("error: devices = 'gpu': TensorFlow sees no GPU"), last


def test_one_worker_needs_one_pool(digits: Dataset, tmp_path: Path) -> None:
    specs = plan_custom_job.python_func(
        shards=dsl.Dataset(uri=str(digits.directory)),
        job=dsl.Artifact(uri=str(tmp_path / "job")),
        image="worker",
        workers=1,
    )
    assert [spec["replica_count"] for spec in specs] == [1]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"model_type": "vgg"}, "model_type = 'vgg': unknown model"),
        ({"workers": 3}, "workers = 3: the data set has"),
        ({"machine_type": ""}, "machine_type = ''"),
        ({"accelerator_type": "NVIDIA_L4", "accelerator_count": 0}, "accelerator_count = 0"),
    ],
)
def test_bad_plan_is_refused_before_anything_is_made(
    change: dict[str, Any], problem: str, digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        plan_custom_job.python_func(
            shards=dsl.Dataset(uri=str(digits.directory)),
            job=dsl.Artifact(uri=str(tmp_path / "job")),
            **{"image": "worker", **change},
        )
    assert ended.value.code == 1
    assert f"error: {problem}" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def collected(planned: SimpleNamespace) -> dict[str, Any]:
    """The planned job run as Vertex would, on this machine without a GPU, and what the steps after it make of it."""
    arguments = ["--job", planned.job.for_devices(0).model_dump_json()]
    pools = ("chief", "worker")
    ports = free_ports(len(planned.specs))
    cluster = {pool: [f"127.0.0.1:{port}"] for pool, port in zip(pools, ports, strict=True)}
    workers = []
    for pool, spec in zip(pools, planned.specs, strict=True):
        container = spec["container_spec"]
        command = [sys.executable if word == "python" else word for word in container["command"]]
        config = {"cluster": cluster, "task": {"type": pool, "index": 0, "cloud": "x"}, "environment": "cloud"}
        settings = {variable["name"]: variable["value"] for variable in container["env"]}
        workers.append(
            subprocess.Popen(
                [*command, *arguments],
                env={**os.environ, **settings, "TF_CONFIG": json.dumps(config)},
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for worker in workers:
        shown, _ = worker.communicate(timeout=300)
        assert worker.returncode == 0, shown
    return collect(job_uri=planned.job.directory, shards_uri=planned.job.dataset).outputs


def test_workers_run_as_vertex_starts_them(planned: SimpleNamespace, collected: dict[str, Any]) -> None:
    model = collected["model"]
    assert model.uri == f"{planned.job.directory}/model"
    assert model.metadata["model_type"] == "cnn_small"
    assert model.metadata["run"] == "run-7"
    assert len(model.metadata["history"]) == 1
    assert collected["metrics"].metadata["val_accuracy"] > 0.5
    assert "Training of cnn_small" in Path(collected["curves"].path).read_text()


def test_uploaded_model_is_what_a_tensorflow_container_loads(collected: dict[str, Any]) -> None:
    uri = collected["servable"]
    assert Path(uri, "saved_model.pb").is_file()
    artifact = {"uri": uri, "metadata": {"containerSpec": {"imageUri": "serving:latest"}}}
    executor_input = {"inputs": {"artifacts": {"unmanaged_container_model": {"artifacts": [artifact]}}}}
    sent = append_unmanaged_model_artifact_into_payload(
        json.dumps(executor_input), payload("model-upload", display_name="digits")
    )
    model = Model.from_json(json.dumps(recursive_remove_empty(sent)))
    assert (model.display_name, model.artifact_uri) == ("digits", uri)
    assert model.container_spec.image_uri == "serving:latest"


def test_endpoint_and_deployment_are_messages_of_the_api() -> None:
    endpoint = Endpoint.from_json(json.dumps(payload("endpoint-create", display_name="digits")))
    assert endpoint.display_name == "digits"
    sent = payload(
        "model-deploy",
        dedicated_resources_machine_type="n1-standard-2",
        dedicated_resources_max_replica_count=3,
    )
    request = DeployModelRequest.from_json(json.dumps(sent))
    assert dict(request.traffic_split) == {"0": 100}
    resources = request.deployed_model.dedicated_resources
    assert (resources.min_replica_count, resources.max_replica_count) == (1, 3)


def test_tf_config_of_vertex_is_understood() -> None:
    config = {
        "cluster": {"chief": ["a-workerpool0-0:2222"], "worker": ["a-workerpool1-0:2222", "a-workerpool1-1:2222"]},
        "environment": "cloud",
        "job": {"worker_pool_specs": []},
        "task": {"cloud": "x", "index": 1, "type": "worker"},
    }
    cluster = cluster_from_environment({"TF_CONFIG": json.dumps(config)})
    assert (cluster.workers, cluster.index, cluster.is_chief) == (3, 2, False)


def test_importing_the_pipeline_needs_no_project_or_credentials() -> None:
    assert vertex.pipeline_spec.pipeline_info.name == "image-classification-vertex"
