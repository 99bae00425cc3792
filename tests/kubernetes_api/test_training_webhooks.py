"""The rules of the training webhooks: each refuses what it should, and none what this project makes.

The words were those of the real webhooks on 2026-11-26; the fake's have to hold them.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from repository import REPOSITORY

from kfp_image_classification.components.train.launchers.job_options import JobOptions
from kfp_image_classification.components.train.launchers.pod_template import PodTemplate, TaskSettings
from kfp_image_classification.components.train.launchers.tfjob import TFJOB
from kfp_image_classification.components.train.launchers.trainjob import TRAINJOB
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kubernetes_api.training_webhooks import refusal

Object = dict[str, Any]
OPTIONS = TrainOptions(model_type="cnn", workers=2, epochs=1, batch_size=32, learning_rates="0:1e-3", seed=0)
PODS = PodTemplate(TrainingJob(options=OPTIONS, dataset="/d", directory="/j"), JobOptions(pvc="claim"), TaskSettings())
RUNTIME: Object = yaml.safe_load((REPOSITORY / "manifests" / "trainer" / "training-runtime.yaml").read_text())


def made(plural: str) -> Object:
    if plural == "clustertrainingruntimes":
        return copy.deepcopy(RUNTIME)
    return (TFJOB if plural == "tfjobs" else TRAINJOB).manifest("train-cnn-1", PODS)


def refused(plural: str, item: Object) -> str | None:
    return refusal(plural, item, lambda _, name: RUNTIME if name == RUNTIME["metadata"]["name"] else None)


@pytest.mark.parametrize("plural", ["tfjobs", "trainjobs", "clustertrainingruntimes"])
def test_what_this_project_makes_is_accepted(plural: str) -> None:
    assert refused(plural, made(plural)) is None


def worker(job: Object) -> Object:
    found: Object = job["spec"]["tfReplicaSpecs"]["Worker"]
    return found


def pod_spec(job: Object) -> Object:
    found: Object = job["template"]["spec"]["template"]["spec"]
    return found


def patched_job(job: Object) -> Object:
    patch = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]
    found: Object = patch["template"]["spec"]["replicatedJobs"][0]
    return found


def runtimes_job(runtime: Object) -> Object:
    found: Object = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]
    return found


def add_chief_and_master(job: Object) -> None:
    job["spec"]["tfReplicaSpecs"] |= {"Chief": worker(job), "Master": worker(job)}


CASES: list[tuple[str, Callable[[Object], Any], str]] = [
    ("tfjobs", lambda job: job["metadata"].update(name="1-train"), "metadata.name: Invalid value"),
    (
        "tfjobs",
        lambda job: job["spec"]["runPolicy"].update(managedBy="me"),
        'spec.runPolicy.managedBy: Unsupported value: "me": supported values: "kueue.x-k8s.io/multikueue", "kube',
    ),
    (
        "tfjobs",
        lambda job: worker(job)["template"]["spec"].update(containers=[]),
        "spec.tfReplicaSpecs[Worker].template.spec.containers: Required value: must be specified",
    ),
    (
        "tfjobs",
        lambda job: worker(job)["template"]["spec"]["containers"][0].update(image=""),
        "spec.tfReplicaSpecs[Worker].template.spec.containers[0].image: Required value: must be required",
    ),
    (
        "tfjobs",
        lambda job: worker(job)["template"]["spec"]["containers"][0].update(name="main"),
        "must have at least one container with name tensorflow",
    ),
    ("tfjobs", add_chief_and_master, "must not have more than 1 Chief or Master role"),
    (
        "trainjobs",
        lambda job: job["spec"]["runtimePatches"][0].update(manager="kfp-image-classification"),
        'must be a domain-prefixed path (such as "acme.io/foo")',
    ),
    (
        "trainjobs",
        lambda job: job["spec"]["runtimePatches"][0].update(manager="Acme.io/foo"),
        "spec.runtimePatches.manager: Invalid value",
    ),
    (
        "trainjobs",
        lambda job: job["spec"]["runtimeRef"].update(name="none"),
        "specified clusterTrainingRuntime must be created before the TrainJob is created",
    ),
    (
        "trainjobs",
        lambda job: job["spec"]["runtimeRef"].update(kind="Other"),
        "unsupported runtime: Other.trainer.kubeflow.org",
    ),
    (
        "trainjobs",
        lambda job: pod_spec(patched_job(job))["containers"][0].update(env=[{"name": "A", "value": "1"}]),
        "must not have envs for the dataset-initializer, model-initializer, node containers",
    ),
    ("clustertrainingruntimes", lambda one: runtimes_job(one).update(replicas=2), "always must be 1"),
    (
        "clustertrainingruntimes",
        lambda one: pod_spec(runtimes_job(one))["containers"][0].update(name="tensorflow"),
        "must contain the required container for the ancestor: trainer",
    ),
]


@pytest.mark.parametrize(("plural", "change", "words"), CASES)
def test_what_a_webhook_refuses(plural: str, change: Callable[[Object], Any], words: str) -> None:
    item = made(plural)
    change(item)
    message = refused(plural, item)
    assert message is not None
    assert words in message
