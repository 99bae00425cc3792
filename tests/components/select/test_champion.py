"""The deployed model is looked up through the cluster's API, or in what earlier runs of this machine noted."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from kubernetes_api import KubernetesApi

from kfp_image_classification.components.contracts.deployed_model import SERVED_VARIABLE, DeployedModel, note_served
from kfp_image_classification.components.contracts.evaluation import NoChampion
from kfp_image_classification.components.select.champion import find_champion_model, within_reach
from kfp_image_classification.components.select.options import ChampionOptions
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed
from kfp_image_classification.components.step.stage_log import stage_log


def find(**options: Any) -> DeployedModel | NoChampion:
    return find_champion_model(
        ChampionOptions(**{"service_name": "digits", "deploy_backend": "kserve", **options}), stage_log("test")
    )


def deployed(model: DeployedModel) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "digits"},
        "spec": {"predictor": {"annotations": model.annotations()}},
    }


def test_deployed_model(kubernetes_api: KubernetesApi, tmp_path: Path) -> None:
    model = DeployedModel(run="r1", model_uri=str(tmp_path), val_accuracy=0.9)
    assert find() == NoChampion()
    kubernetes_api.create(deployed(model))
    assert find() == model
    assert find(force=True) == NoChampion()
    with pytest.raises(StageFailed, match='in the namespace "default"'):
        find(namespace="default")


def test_model_that_comes_from_nowhere(kubernetes_api: KubernetesApi) -> None:
    kubernetes_api.create(deployed(DeployedModel(run="r1")))
    assert find() == NoChampion(reason="the service digits does not say where its model comes from")


def test_model_out_of_reach(kubernetes_api: KubernetesApi) -> None:
    kubernetes_api.create(deployed(DeployedModel(model_uri="/home/someone/runs/model")))
    found = find()
    assert isinstance(found, NoChampion)
    assert found.holds_back
    assert found.reason == "its files at /home/someone/runs/model cannot be reached from here"


@pytest.mark.parametrize("in_pod", [True, False])
def test_a_pod_reaches_the_stores_and_a_machine_its_folders(
    in_pod: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_pod:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    else:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for uri in ("minio://a/b", "s3://a/b", "gs://a/b"):
        assert within_reach(uri) is in_pod
    assert within_reach(str(tmp_path)) is not in_pod
    assert not within_reach("pvc://a/b")


def test_cluster_that_does_not_tell(kubernetes_api: KubernetesApi) -> None:
    kubernetes_api.forbid("get", "inferenceservices")
    with pytest.raises(StageFailed, match="cannot get resource.*force = true deploys without looking"):
        find()


def test_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(InvalidInput, match="no cluster can be reached"):
        find()


def test_last_served_model_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, copied = tmp_path / "train", tmp_path / "select"
    monkeypatch.setenv(SERVED_VARIABLE, str(tmp_path / ".served"))
    assert find(deploy_backend="local") == NoChampion()
    for folder in (chosen, copied):
        folder.mkdir()
    note_served("digits", str(copied), {"selected_uri": str(chosen), "model_type": "cnn", "run": "r1"})
    found = find(deploy_backend="local")
    assert isinstance(found, DeployedModel)
    assert (found.model_uri, found.model_type) == (str(chosen), "cnn")
    assert find(deploy_backend="local", service_name="other") == NoChampion()
    shutil.rmtree(chosen)
    found = find(deploy_backend="local")
    assert isinstance(found, DeployedModel)
    assert found.model_uri == str(copied)
    shutil.rmtree(copied)
    assert find(deploy_backend="local") == NoChampion(), "who deletes a run gives its model up"


@pytest.mark.parametrize("text", ["", "[", "[1]", '[{"run": 1}]', "{}", "null"])
def test_note_that_cannot_be_read(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVED_VARIABLE, str(tmp_path))
    (tmp_path / "digits.json").write_text(text)
    assert find(deploy_backend="local") == NoChampion()
