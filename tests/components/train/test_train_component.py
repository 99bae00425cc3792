"""The components of a run on a cluster, from the data set on the volume to the model in its artifact."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from kfp import dsl
from kubernetes_api import KubernetesApi
from log_lines import LogLines
from training_operator import TrainingOperator, leave_results

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.contracts.model_card import read_model_card
from kfp_image_classification.components.ingest import ingest, prepare_data
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.train import train
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.run_job import run_job
from kfp_image_classification.components.train.vertex import plan_custom_job


def artifact(kind: type[dsl.Artifact], path: Path) -> dsl.Artifact:
    path.parent.mkdir(parents=True, exist_ok=True)
    return kind(name=path.name, uri=str(path), metadata={})


def test_steps_of_a_pod_keep_their_data_on_the_volume(
    kubernetes_api: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: SimpleNamespace
) -> None:
    volume, artifacts = tmp_path / "volume", tmp_path / "artifacts"
    volume.mkdir()
    monkeypatch.setenv("STORAGE_PATH", str(volume))
    monkeypatch.setenv("RUN_ID", "run-1")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    shards = artifact(dsl.Dataset, artifacts / "ingest" / "shards")
    fingerprint = prepare_data.python_func()
    preview = artifact(dsl.HTML, artifacts / "ingest" / "preview")
    ingest.python_func(shards=shards, preview=preview, fingerprint=fingerprint)
    assert [path.name for path in Path(shards.path).iterdir()] == ["manifest.json"]
    root = Path(Dataset(shards.path).manifest.root)
    assert root == volume / "datasets" / fingerprint
    assert len(list(root.glob("train-*"))) == 8

    outputs = {
        name: artifact(kind, artifacts / "train" / name)
        for name, kind in (("model", dsl.Model), ("metrics", dsl.Metrics), ("curves", dsl.HTML))
    }
    config = dsl.TaskConfig(
        resources={"limits": {"cpu": "3", "memory": "5Gi"}},
        tolerations=[{"key": "spot", "operator": "Exists"}],
        volumes=[{"name": "claim", "persistentVolumeClaim": {"claimName": "image-classification"}}],
        volume_mounts=[{"name": "claim", "mountPath": str(volume)}],
    )
    step = threading.Thread(target=train.python_func, kwargs={"shards": shards, "task_config": config, **outputs})
    step.start()
    operator = TrainingOperator(kubernetes_api)
    job = operator.wait_for_job()
    template = job["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]
    assert template["containers"][0]["resources"]["limits"] == {"cpu": "3", "memory": "5Gi"}
    assert template["tolerations"] == config.tolerations
    assert template["volumes"] == config.volumes
    directory = volume / "runs" / "run-1" / job["metadata"]["name"]
    assert Dataset(directory / "dataset").manifest.root == str(root)
    leave_results(directory, trained)
    operator.succeed(job)
    step.join(60)
    assert not step.is_alive()
    model = outputs["model"]
    assert read_model_card(model.path) == trained.result.card
    assert (Path(model.path) / "1" / "saved_model.pb").is_file()
    assert model.metadata["run"] == trained.result.card.run
    assert model.metadata["work_dir"] == str(directory)
    assert (directory / "model").is_dir(), "kept for a step that is run again"


@pytest.mark.parametrize("vertex", [False, True], ids=["train", "plan_custom_job"])
def test_what_does_not_fit_the_data_set_is_told_before_anything_is_made(
    vertex: bool, digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And before weights are looked for."""
    shards = dsl.Dataset(uri=str(digits.directory))
    wrong = {"batch_size": 5000, "weights": f"{tmp_path}/none.keras"}
    if vertex:
        step, outputs = plan_custom_job, {"job": artifact(dsl.Artifact, tmp_path / "job")}
    else:
        model, metrics, curves = (artifact(kind, tmp_path / "out") for kind in (dsl.Model, dsl.Metrics, dsl.HTML))
        step, outputs = train, {"model": model, "metrics": metrics, "curves": curves, "task_config": None}
    with pytest.raises(SystemExit):
        step.python_func(shards=shards, **outputs, **wrong)
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "error: " in line]
    assert "batch_size = 5000: 2 workers make a global batch of 10000, more than the 3600 training images" in told
    assert [*tmp_path.iterdir()] == []


def test_place_where_no_model_can_be_is_told_before_the_training(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = TrainOptions(model_type="cnn", workers=2, epochs=1, batch_size=32, learning_rates="0:1e-3", seed=7)
    job = TrainingJob(options=options, dataset=str(digits.directory), directory=str(tmp_path / "job"))
    with pytest.raises(StageFailed, match=f"^{tmp_path}/file/model: no model can be brought there: .*File exists"):
        run_job(job, tmp_path / "file" / "model", LogLines().logger)
    assert not (tmp_path / "job").exists()
