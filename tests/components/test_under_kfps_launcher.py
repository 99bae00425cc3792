"""The components' own commands under the rules of KFP's launcher: where outputs may lie, and what becomes of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from evaluations import write_evaluation
from kfp_launcher import Artifact, Refused, Run

from kfp_image_classification.components.contracts.deployed_model import DeployedModel
from kfp_image_classification.components.contracts.model_card import read_model_card
from kfp_image_classification.components.deploy import deploy
from kfp_image_classification.components.deploy.kserve.storage_uri import kserve_storage_uri
from kfp_image_classification.components.deploy.local_server import stop_server
from kfp_image_classification.components.evaluate import evaluate, measure_champion
from kfp_image_classification.components.ingest import find_new_data, ingest
from kfp_image_classification.components.select import find_champion, select
from kfp_image_classification.components.train import train


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Two runs of one pipeline, which share the artifact store."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return [Run(tmp_path / "store", tmp_path / "scratch") for _ in range(2)]


def recorded(run: Run, name: str, schema: str, files: Path | None, /, **metadata: Any) -> Artifact:
    uri = f"{run.prefix}/earlier/{name}"
    if files:
        shutil.copytree(files, run.store / uri.removeprefix("minio://"))
    metadata = {key: float(value) if isinstance(value, int) else value for key, value in metadata.items()}
    return {"name": "7", "type": {"schemaTitle": schema}, "uri": uri, "metadata": metadata}


def evaluated(run: Run, scratch: Path, name: str, wrong: range, **more: Any) -> Artifact:
    write_evaluation(scratch / f"evaluation-{name}", name, wrong, **more)
    return recorded(run, f"metrics-{name}", "system.Metrics", scratch / f"evaluation-{name}")


def written(run: Run, artifact: Artifact) -> dict[str, bytes]:
    folder = run.store / artifact["uri"].removeprefix("minio://")
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model" / "1"
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "assets.extra" / "model.json").write_text("{}")
    return tmp_path / "model"


@pytest.mark.parametrize("cached", [True, False], ids=["train from another run's cache", "train of this run"])
def test_selected_model_is_an_output_of_its_own_run(runs: list[Run], model: Path, cached: bool, tmp_path: Path) -> None:
    earlier, run = runs
    source = earlier if cached else run
    models = [
        recorded(source, name, "system.Model", model, model_type=name, run="r1", dataset_fingerprint="f1", workers=2)
        for name in ("cnn", "cnn_dropout")
    ]
    evaluations = [evaluated(source, tmp_path, "cnn", range(80)), evaluated(source, tmp_path, "cnn_dropout", range(40))]
    step = run.step(select, {"models": models, "evaluations": evaluations}, gate=0.5)
    assert step.parameters == {"Output": True}
    best = step.artifacts["best"]
    assert best["uri"].startswith(f"{run.prefix}/select/")
    assert written(run, best) == written(run, models[1])
    assert {**models[1]["metadata"], "val_accuracy": 0.9, "test_accuracy": 0.9}.items() <= best["metadata"].items()
    assert best["metadata"]["selected_uri"] == models[1]["uri"]
    deployed = DeployedModel.of_artifact(best["uri"], best["metadata"], "r2")
    assert (deployed.model_type, deployed.val_accuracy, deployed.dataset_fingerprint) == ("cnn_dropout", 0.9, "f1")
    assert kserve_storage_uri(deployed.model_uri) == best["uri"].replace("minio://", "s3://")


def test_selected_model_whose_files_are_gone(runs: list[Run], tmp_path: Path) -> None:
    models = [recorded(runs[0], "cnn", "system.Model", None, model_type="cnn")]
    evaluations = [evaluated(runs[0], tmp_path, "cnn", range(40))]
    with pytest.raises(Refused, match="error: models: the best one's files are not at .* any more; train it again"):
        runs[1].step(select, {"models": models, "evaluations": evaluations}, gate=0.5)


def test_evaluation_without_answers_is_refused(runs: list[Run], model: Path) -> None:
    models = [recorded(runs[0], "cnn", "system.Model", model, model_type="cnn")]
    evaluations = [recorded(runs[0], "metrics", "system.Metrics", None, val_accuracy=0.9)]
    with pytest.raises(
        Refused, match="holds no readable evaluation.json .* evaluate the model again, not from the cac"
    ):
        runs[1].step(select, {"models": models, "evaluations": evaluations})


@pytest.mark.parametrize("wrong", [range(40, 52), range(40, 120)], ids=["as good", "worse"])
def test_champion_stays_or_is_beaten(wrong: range, runs: list[Run], model: Path, tmp_path: Path) -> None:
    run = runs[0]
    models = [recorded(run, "cnn", "system.Model", model, model_type="cnn")]
    artifacts = {"models": models, "evaluations": [evaluated(run, tmp_path, "cnn", range(10))]}
    champion = evaluated(run, tmp_path, "old", wrong)
    step = run.step(select, {**artifacts, "champion": [champion]}, deploy_backend="kserve")
    assert step.parameters == {"Output": len(wrong) > 12}
    assert step.artifacts["best"]["metadata"]["selected_uri"] == models[0]["uri"]
    assert ("that one stays" in run.printed) is (len(wrong) == 12)


def test_no_champion_in_the_beginning(runs: list[Run], tmp_path: Path) -> None:
    """The note that there is none goes the way that a model would go: to the store, and through an importer."""
    found = runs[0].step(find_champion, service_name="digits", deploy_backend="local")
    uri = found.parameters["Output"]
    assert uri == found.artifacts["found"]["uri"]
    assert found.parameters["initial_uri"] == "none"
    imported = {"name": "8", "type": {"schemaTitle": "system.Model"}, "uri": uri, "metadata": {}}
    shards = recorded(runs[0], "shards", "system.Dataset", None)
    measured = runs[0].step(measure_champion, {"champion": [imported], "shards": [shards]}).artifacts["metrics"]
    assert list(written(runs[0], measured)) == ["no-champion.json"]


def test_new_data_since_the_deployed_model(runs: list[Run], tmp_path: Path) -> None:
    for number in range(6):
        image = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    dataset, known = f"image_folder:{tmp_path / 'images'}", {"dataset_fingerprint": "f1", "dataset_images": 4}
    for found, new in (
        (runs[0].step(find_champion, service_name="digits", deploy_backend="local").artifacts["found"], [6, 0, ""]),
        (recorded_file(runs[0], DeployedModel.of_artifact("/m", known, "r1")), [2, 4, "f1"]),
    ):
        step = runs[0].step(find_new_data, {"deployed": [found]}, dataset=dataset)
        assert list(step.parameters.values()) == new
        assert list(step.parameters) == ["new_images", "known_images", "fingerprint"]


def recorded_file(run: Run, model: DeployedModel) -> Artifact:
    """What find_champion leaves of a model."""
    uri = f"{run.prefix}/earlier/found"
    stored = run.store / uri.removeprefix("minio://")
    stored.parent.mkdir(parents=True)
    stored.write_text(model.model_dump_json())
    return {"name": "9", "type": {"schemaTitle": "system.Artifact"}, "uri": uri, "metadata": {}}


def test_launcher_refuses_an_output_elsewhere(runs: list[Run]) -> None:
    from kfp import dsl

    @dsl.component(base_image="x", install_kfp_package=False)
    def elsewhere(model: dsl.Output[dsl.Model]):
        model.uri = "minio://mlpipeline/v2/artifacts/image-classification/another-run/train/model"

    @dsl.component(base_image="x", install_kfp_package=False)
    def unknown(model: dsl.Output[dsl.Model]):
        model.metadata["accuracy"] = None

    with pytest.raises(
        Refused, match='failed to upload output artifact "model": URI .* not have expected bucket prefix'
    ):
        runs[0].step(elsewhere)
    with pytest.raises(Refused, match="accuracy: unknown/unsupported value type"):
        runs[0].step(unknown)


@pytest.mark.slow
def test_whole_pipeline_with_training_from_another_run(runs: list[Run]) -> None:
    earlier, run = runs
    shards = earlier.step(ingest, dataset="mnist_5k", workers=1).artifacts["shards"]
    trained = earlier.step(
        train, {"shards": [shards]}, model_type="cnn", workers=1, epochs=1, batch_size=64, backend="local"
    ).artifacts["model"]
    measured = run.step(evaluate, {"model": [trained], "shards": [shards]}).artifacts["metrics"]
    step = run.step(select, {"models": [trained], "evaluations": [measured]}, gate=0.1)
    best = step.artifacts["best"]
    assert read_model_card(run.store / best["uri"].removeprefix("minio://")).model_type == "cnn"
    assert written(run, best) == written(run, trained)
    endpoint = run.step(deploy, {"model": [best]}, backend="local", service_name="digits").artifacts["endpoint"]
    deployed = json.loads(written(run, endpoint)["endpoint.json"])
    stop_server(deployed["pid"])
    assert endpoint["metadata"]["predict_url"] == f"{deployed['url']}/v1/models/digits:predict"
