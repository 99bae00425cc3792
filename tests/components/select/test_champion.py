"""The deployed model is looked up through the cluster's API."""

from typing import Any

import pytest
from kubernetes_api import KubernetesApi

from kfp_image_classification.components.contracts.deployed_model import DeployedModel
from kfp_image_classification.components.select.champion import find_champion
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed
from kfp_image_classification.components.step.stage_log import stage_log

LOG = stage_log("test")
MODEL = DeployedModel(run="r1", model_uri="minio://a/b", val_accuracy=0.9)


def deployed(model: DeployedModel) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "digits"},
        "spec": {"predictor": {"annotations": model.annotations()}},
    }


def test_deployed_model(kubernetes_api: KubernetesApi) -> None:
    assert find_champion("digits", "", LOG) is None
    kubernetes_api.create(deployed(MODEL))
    assert find_champion("digits", "", LOG) == MODEL
    with pytest.raises(StageFailed, match='in the namespace "default"'):
        find_champion("digits", "default", LOG)


def test_model_of_unknown_accuracy(kubernetes_api: KubernetesApi) -> None:
    kubernetes_api.create(deployed(DeployedModel(run="r1")))
    assert find_champion("digits", "", LOG) is None


def test_cluster_that_does_not_tell(kubernetes_api: KubernetesApi) -> None:
    kubernetes_api.forbid("get", "inferenceservices")
    with pytest.raises(StageFailed, match="cannot get resource.*force = true deploys without looking"):
        find_champion("digits", "", LOG)


def test_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(InvalidInput, match="no cluster can be reached"):
        find_champion("digits", "", LOG)
