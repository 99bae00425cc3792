"""The deploy step against a real model server: the smoke prediction, through an ingress' address, is a real one."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import kfp.dsl
import pytest
from kserve_controller import KServe
from kubernetes_api import KubernetesApi

from kfp_image_classification.components.contracts.deployed_model import champion
from kfp_image_classification.components.deploy import deploy, promote, rollback
from kfp_image_classification.components.deploy.endpoint import Endpoint
from kfp_image_classification.components.deploy.local_server import deploy_locally, stop_server
from kfp_image_classification.components.deploy.options import DeployOptions
from kfp_image_classification.components.step.stage_log import stage_log

STORAGE_URI = "pvc://image-classification/runs/r1/model"


@pytest.fixture(scope="module")
def server(trained: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    directory = tmp_path_factory.mktemp("service") / "endpoint"
    options = DeployOptions(backend="local", service_name="digits")
    deployed = deploy_locally(trained.model, options, directory, stage_log("test"))
    yield deployed
    stop_server(deployed.pid)


def test_component(
    trained: SimpleNamespace,
    server: Endpoint,
    kubernetes_api: KubernetesApi,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    service = {"storage_uri": STORAGE_URI, "ingress_url": server.url, "poll_seconds": 0.1, "settle_seconds": 0.2}
    model = kfp.dsl.Model(name="best", uri=str(trained.model), metadata={"val_accuracy": 0.97, "run": "r1"})
    endpoint = kfp.dsl.Artifact(name="endpoint", uri=str(tmp_path / "endpoint"))
    common = {"backend": "kserve", "service_name": "digits", "min_replicas": 1.0, "service": service}
    with KServe(kubernetes_api).running():
        deploy.python_func(model=model, endpoint=endpoint, **common)
        live = kubernetes_api.get("inferenceservices", "digits")
        assert live["spec"]["predictor"]["model"]["storageUri"] == STORAGE_URI
        assert (champion(live).val_accuracy, champion(live).run) == (0.97, "r1")
        assert endpoint.metadata["predict_url"] == f"{server.url}/v1/models/digits:predict"
        written = Endpoint.read(tmp_path / "endpoint")
        assert written.example_answer == written.example_label

        other = shutil.copytree(trained.model, tmp_path / "other")
        card_file = other / "1" / "assets.extra" / "model.json"
        card = json.loads(card_file.read_text())
        card["examples"][0]["probabilities"].reverse()
        card_file.write_text(json.dumps(card))
        model = kfp.dsl.Model(name="best", uri=str(other), metadata={"val_accuracy": 0.99})
        with pytest.raises(SystemExit) as ended:
            deploy.python_func(model=model, endpoint=endpoint, **common)
        assert ended.value.code == 1
        said = capsys.readouterr().out
        assert "[deploy] error: smoke prediction" in said
        assert "[deploy] error: digits: the version before is put back; it is ready." in said
        assert kubernetes_api.get("inferenceservices", "digits")["spec"] == live["spec"]

        for component, problem in ((promote, "no canary is under way"), (rollback, "nothing to go back to")):
            with pytest.raises(SystemExit):
                component.python_func(service_name="digits", service={"poll_seconds": 0.1})
            assert problem in capsys.readouterr().out.replace("\n", " ")
