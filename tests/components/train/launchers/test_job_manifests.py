"""Manifests from options, as plain data."""

import contextlib
import json
import re
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from kubernetes_api.crds import REAL_CRDS, needs_definitions, unknown_fields

from kfp_image_classification.components.cluster.images import TENSORFLOW_GPU_IMAGE, TENSORFLOW_IMAGE
from kfp_image_classification.components.step.errors import InvalidInput, checked
from kfp_image_classification.components.train.launchers.cluster_job import check_devices
from kfp_image_classification.components.train.launchers.job_options import JobOptions, check_backend
from kfp_image_classification.components.train.launchers.naming import LONGEST_NAME, job_name
from kfp_image_classification.components.train.launchers.pod_template import PodTemplate, TaskSettings
from kfp_image_classification.components.train.launchers.tfjob import TFJOB
from kfp_image_classification.components.train.launchers.trainjob import TRAINJOB
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions

OPTIONS = TrainOptions(model_type="cnn", workers=3, epochs=1, batch_size=32, learning_rates="0:1e-3", seed=0)
JOB = TrainingJob(options=OPTIONS, dataset="/mnt/storage/d", directory="/mnt/storage/$(oops)/job")
EVERYTHING: dict[str, Any] = {
    "image_pull_secrets": ["registry"],
    "env": {"NCCL_DEBUG": "INFO", "THREADS": 2.0},
    "volumes": [{"name": "extra", "emptyDir": {}}],
    "volume_mounts": [{"name": "extra", "mountPath": "/extra"}],
    "node_selector": {"pool": "gpu"},
    "tolerations": [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 60.0}],
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "service_account": "trainer",
    "labels": {"team": "vision"},
    "annotations": {"note": "x"},
    "run_as_user": 2000.0,
    "deadline_seconds": 3600.0,
}
TFJOB_ONLY: dict[str, Any] = {
    "chief": True,
    "image_pull_policy": "Always",
    "priority_class": "high",
    "scheduling_policy": {"minAvailable": 3.0, "queue": "training"},
    "clean_pod_policy": "All",
    "ttl_seconds": 60,
    "backoff_limit": 5,
}
TASK = TaskSettings(
    resources={"limits": {"cpu": "2", "memory": "4Gi"}, "requests": {"cpu": "1"}},
    env=[{"name": "FROM_TASK", "value": "1"}, {"name": "RUN_ID", "valueFrom": {}}],
    volumes=[{"name": "pvc-1", "persistentVolumeClaim": {"claimName": "claim"}}],
    volume_mounts=[{"name": "pvc-1", "mountPath": "/mnt/storage"}],
    tolerations=[{"key": "spot", "operator": "Exists"}],
    node_selector={"zone": "a"},
)


def options(job: dict[str, Any] | None = None, **flat: Any) -> JobOptions:
    return checked(JobOptions, **{"worker_image": "registry.example.com/tf:1", "pvc": "claim", **flat}, job=job or {})


def template(pods: PodTemplate, role: str = "Worker") -> dict[str, Any]:
    found: dict[str, Any] = TFJOB.manifest("train-cnn-1", pods)["spec"]["tfReplicaSpecs"][role]["template"]
    return found


def test_tfjob_in_full() -> None:
    manifest = TFJOB.manifest("train-cnn-1", PodTemplate(JOB, options(), TaskSettings(), "run-1"))
    assert manifest["metadata"] == {
        "name": "train-cnn-1",
        "labels": {"app.kubernetes.io/managed-by": "kfp-image-classification", "pipeline/runid": "run-1"},
        "annotations": {},
    }
    worker = manifest["spec"].pop("tfReplicaSpecs").pop("Worker")
    assert manifest["spec"] == {
        "runPolicy": {
            "cleanPodPolicy": "Running",
            "ttlSecondsAfterFinished": 86400,
            "activeDeadlineSeconds": 86400,
            "backoffLimit": 9,
        },
        "successPolicy": "AllWorkers",
    }
    assert (worker["replicas"], worker["restartPolicy"]) == (3, "ExitCode")
    assert worker["template"]["metadata"] == {
        "labels": manifest["metadata"]["labels"],
        "annotations": {"sidecar.istio.io/inject": "false"},
    }
    pod = worker["template"]["spec"]
    (container,) = pod.pop("containers")
    assert pod == {
        "volumes": [{"name": "run-storage", "persistentVolumeClaim": {"claimName": "claim"}}],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "automountServiceAccountToken": False,
    }
    assert container.pop("env")[0] == {"name": "PYTHONUNBUFFERED", "value": "1"}
    arguments = container.pop("args")
    assert arguments[0] == "--job"
    assert TrainingJob.model_validate_json(arguments[1].replace("$$(", "$(")) == JOB
    assert "$$(oops)" in arguments[1], "the kubelet would put a variable there"
    assert container == {
        "name": "tensorflow",
        "image": "registry.example.com/tf:1",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "kfp_image_classification.components.train.worker"],
        "resources": {"limits": {"cpu": "1", "memory": "2Gi"}, "requests": {"cpu": "1", "memory": "2Gi"}},
        "ports": [{"name": "tfjob-port", "containerPort": 2222}, {"name": "exchange", "containerPort": 2223}],
        "volumeMounts": [{"name": "run-storage", "mountPath": "/mnt/storage"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def test_chief_is_one_of_the_workers() -> None:
    manifest = TFJOB.manifest("a", PodTemplate(JOB, options({"chief": True}), TaskSettings()))
    counts = {role: spec["replicas"] for role, spec in manifest["spec"]["tfReplicaSpecs"].items()}
    assert counts == {"Chief": 1, "Worker": 2}
    assert "successPolicy" not in manifest["spec"]


@pytest.mark.parametrize(
    ("flat", "task", "expected"),
    [
        ({}, {}, {"limits": {"cpu": "1", "memory": "2Gi"}, "requests": {"cpu": "1", "memory": "2Gi"}}),
        ({}, TASK.resources, {"limits": {"cpu": "2", "memory": "4Gi"}, "requests": {"cpu": "1"}}),
        (
            {"worker_cpu": "500m"},
            TASK.resources,
            {"limits": {"cpu": "500m", "memory": "4Gi"}, "requests": {"cpu": "500m"}},
        ),
        (
            {"worker_gpus": 2},
            {},
            {
                "limits": {"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "2"},
                "requests": {"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "2"},
            },
        ),
    ],
)
def test_resources(flat: dict[str, Any], task: dict[str, Any], expected: dict[str, Any]) -> None:
    pods = PodTemplate(JOB, options(**flat), TaskSettings(resources=task))
    assert template(pods)["spec"]["containers"][0]["resources"] == expected


def test_backbones_have_the_memory_that_their_export_takes() -> None:
    own = JOB.options.model_copy(update={"model_type": "resnet50_v2"})
    pods = PodTemplate(JOB.model_copy(update={"options": own}), options(), TaskSettings())
    assert template(pods)["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "4Gi"}


@pytest.mark.parametrize(
    ("flat", "job", "task", "gpus", "image"),
    [
        ({}, {}, {}, 0, TENSORFLOW_IMAGE),
        ({"worker_gpus": 1}, {}, {}, 1, TENSORFLOW_GPU_IMAGE),
        ({"worker_gpus": 4}, {}, {}, 4, TENSORFLOW_GPU_IMAGE),
        ({"worker_gpus": 1, "worker_image": "own:1"}, {}, {}, 1, "own:1"),
        ({}, {}, {"limits": {"nvidia.com/gpu": "2"}}, 2, TENSORFLOW_GPU_IMAGE),
        (
            {},
            {"gpu_resource": "nvidia.com/mig-1g.5gb"},
            {"limits": {"nvidia.com/mig-1g.5gb": 1}},
            1,
            TENSORFLOW_GPU_IMAGE,
        ),
        ({}, {}, {"limits": {"cpu": "2"}}, 0, TENSORFLOW_IMAGE),
    ],
)
@pytest.mark.parametrize("kind", [TFJOB, TRAINJOB], ids=["tfjob", "trainjob"])
def test_workers_with_gpus_have_the_image_for_them(
    kind: Any, flat: dict[str, Any], job: dict[str, Any], task: dict[str, Any], gpus: int, image: str
) -> None:
    pods = PodTemplate(JOB, options(job, **{"worker_image": "", **flat}), TaskSettings(resources=task))
    assert pods.gpus == gpus
    assert re.findall(r'"image": "([^"]+)"', json.dumps(kind.manifest("train-cnn-1", pods))) == [image]


@pytest.mark.parametrize(
    ("devices", "gpus", "problem"),
    [
        ("auto", 0, ""),
        ("auto", 2, ""),
        ("gpu", 1, ""),
        ("cpu", 0, ""),
        ("gpu", 0, "devices = 'gpu': a worker of a cluster has the GPUs that its pod asks for, and it asks for none"),
        ("cpu", 2, "devices = 'cpu': each worker would have 2 GPUs and not use them; set worker_gpus = 0"),
    ],
)
def test_devices_and_gpus_go_together(devices: Any, gpus: int, problem: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(problem)) if problem else contextlib.nullcontext():
        check_devices(devices, gpus, "nvidia.com/gpu")


@pytest.mark.parametrize(("gpus", "devices"), [(0, "cpu"), (1, "gpu"), (4, "gpu")])
def test_a_pod_is_told_what_it_was_given(gpus: int, devices: str) -> None:
    told = JOB.for_devices(gpus)
    assert (told.options.devices, told.gpus, told.shares_gpu) == (devices, gpus, False)


def test_what_is_set_on_the_task_wins_over_defaults_and_the_options_over_both() -> None:
    names = ("TF_CPP_MIN_LOG_LEVEL", "MALLOC_TOP_PAD_")
    task = TaskSettings(env=[{"name": name, "value": "1"} for name in names])
    pods = PodTemplate(JOB, options({"env": {"MALLOC_TOP_PAD_": "2"}}), task)
    found = template(pods)["spec"]["containers"][0]["env"]
    assert [item["value"] for name in names for item in found if item["name"] == name] == ["1", "2"]


def test_what_is_set_on_the_task_reaches_the_pods_beside_the_options() -> None:
    pod = template(PodTemplate(JOB, options(EVERYTHING), TASK))["spec"]
    container = pod["containers"][0]
    env = {item["name"]: item.get("value") for item in container["env"]}
    assert {"FROM_TASK": "1", "NCCL_DEBUG": "INFO", "THREADS": "2"}.items() <= env.items()
    assert "RUN_ID" not in env
    assert [volume["name"] for volume in pod["volumes"]] == ["pvc-1", "extra"], "the claim is mounted already"
    assert pod["nodeSelector"] == {"zone": "a", "pool": "gpu"}
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["spot", "gpu"]
    assert pod["tolerations"][1]["tolerationSeconds"] == 60
    assert pod["securityContext"]["runAsUser"] == 2000


@pytest.mark.parametrize("kind", [TFJOB, TRAINJOB], ids=["tfjob", "trainjob"])
@needs_definitions
def test_manifest_of_every_option_is_valid(kind: Any) -> None:
    every = EVERYTHING | (TFJOB_ONLY if kind is TFJOB else {})
    manifest = kind.manifest("train-cnn-1", PodTemplate(JOB, options(every, worker_gpus=1), TASK, "run-1"))
    crd = yaml.safe_load((REAL_CRDS / f"{kind.plural}.{kind.group}.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert [error.message for error in Draft7Validator(schema).iter_errors(manifest)] == []
    assert unknown_fields(schema, manifest) == []


def test_trainjob() -> None:
    spec = TRAINJOB.manifest("a", PodTemplate(JOB, options(EVERYTHING), TASK, "run-1"))["spec"]
    assert spec["runtimeRef"]["name"] == "tensorflow-distributed"
    assert spec["trainer"]["numNodes"] == 3
    (patch,) = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert patch["name"] == "node"
    assert patch["template"]["spec"]["template"]["spec"]["containers"][0]["name"] == "node"


@pytest.mark.parametrize(
    ("flat", "job", "problem"),
    [
        ({"worker_cpu": "0m"}, {}, "worker_cpu = '0m': must be a Kubernetes quantity above zero"),
        ({"worker_memory": "2 GB"}, {}, "worker_memory = '2 GB': must be a Kubernetes quantity"),
        ({"worker_gpus": -1}, {}, "worker_gpus = -1"),
        ({"pvc": "My Claim"}, {}, "pvc = 'My Claim': must be a name as Kubernetes takes it"),
        ({}, {"evaluator": True}, "job.evaluator = True: an evaluator replica would have nothing to do"),
        ({}, {"deadline": 3}, "job.deadline = 3"),
        ({}, {"start_seconds": 0}, "job.start_seconds = 0"),
        ({}, {"start_seconds": 1.5}, "job.start_seconds = 1.5"),
        ({}, {"run_as_user": 0}, "job.run_as_user = 0"),
        ({}, {"env": {"TF_CONFIG": "{}"}}, "TF_CONFIG is set by the operator"),
        ({}, {"env": {"a b": "1"}}, "'a b' is no name of an environment variable"),
        ({}, {"volumes": [{"emptyDir": {}}]}, "each needs a name"),
        ({}, {"clean_pod_policy": "Some"}, "job.clean_pod_policy = 'Some'"),
    ],
)
def test_bad_options_are_named(flat: dict[str, Any], job: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput) as error:
        options(job, **flat)
    assert problem in str(error.value)


def test_all_problems_at_once() -> None:
    with pytest.raises(InvalidInput) as error:
        options({"evaluator": True, "ttl_seconds": -1}, worker_cpu="x")
    assert len(error.value.problems) == 3


def test_what_a_trainjob_cannot_do_is_refused_with_the_place_to_set_it() -> None:
    with pytest.raises(InvalidInput) as error:
        check_backend(options(TFJOB_ONLY), "trainjob")
    assert len(error.value.problems) == len(TFJOB_ONLY)
    assert "job.priority_class = 'high': not for backend trainjob: set it in the ClusterTrainingRuntime" in (
        error.value.problems
    )
    check_backend(options(EVERYTHING), "trainjob")
    check_backend(options(EVERYTHING | TFJOB_ONLY), "tfjob")


@pytest.mark.parametrize("model", ["cnn", "cnn_batchnorm", "X" * 80, "_", "a.b/c d", "ünïcode"])
def test_name_is_a_dns_label_and_depends_on_run_and_identity(model: str) -> None:
    name = job_name("run-1", model, "identity")
    assert len(name) <= LONGEST_NAME
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert name == job_name("run-1", model, "identity")
    assert len({name, job_name("run-2", model, "identity"), job_name("run-1", model, "other")}) == 3
