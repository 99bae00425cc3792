"""Tracking of a really trained model on a real MLflow server."""

import base64
import http.server
import io
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pytest
from kfp import dsl
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from kfp_image_classification.components.contracts.model_card import read_model_card
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.step.stage_log import stage_log
from kfp_image_classification.components.track import track as track_component
from kfp_image_classification.components.track.mlflow_server import check_server, connected
from kfp_image_classification.components.track.options import TrackOptions, track_options
from kfp_image_classification.components.track.tracked_run import EvaluatedModel, PipelineRun, track_run

SCORES = {"val_accuracy": 0.97, "test_accuracy": 0.96, "test_macro_f1": 0.95}


@pytest.fixture(scope="module")
def candidates(trained: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> list[EvaluatedModel]:
    """The trained model, and the same under another name."""
    other = shutil.copytree(trained.model, tmp_path_factory.mktemp("other") / "model")
    card = read_model_card(other).model_copy(update={"model_type": "cnn_dropout"})
    (other / "1" / "assets.extra" / "model.json").write_text(card.model_dump_json())
    best = EvaluatedModel(trained.model, trained.result.history, SCORES, "/data/digits", selected=True)
    return [best, replace(best, directory=other, scores={**SCORES, "test_accuracy": 0.5}, selected=False)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "leaderboard.html"
    path.write_text("<html>the ranking</html>")
    return path


@pytest.fixture
def options(mlflow_server: str, request: pytest.FixtureRequest) -> TrackOptions:
    """An experiment and a registry entry for each test."""
    name = request.node.name.replace("_", "-")
    return track_options(
        mlflow_uri=mlflow_server, mlflow_experiment=name, registered_model=name, kfp_ui="https://kubeflow.example"
    )


def track(
    options: TrackOptions, models: list[EvaluatedModel], page: Path, good_enough: bool = True, run: str = "run-1"
) -> None:
    with connected(options.mlflow_uri) as client:
        track_run(client, options, PipelineRun(run, "first"), models, good_enough, page, stage_log("test"))


def tracked(options: TrackOptions) -> tuple[Run, dict[str, Run]]:
    """The one parent run of an experiment, and the nested runs by name."""
    client = MlflowClient(options.mlflow_uri)
    experiment = client.get_experiment_by_name(options.mlflow_experiment)
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(nested) == len(runs) - 1 == len({run.info.run_name for run in nested})
    return parent, {run.info.run_name: run for run in nested}


def test_run_is_tracked(
    options: TrackOptions, candidates: list[EvaluatedModel], page: Path, trained: SimpleNamespace
) -> None:
    track(options, candidates, page)
    parent, nested = tracked(options)
    client = MlflowClient(options.mlflow_uri)
    card = read_model_card(trained.model)

    assert set(nested) == {"cnn", "cnn_dropout"}
    assert {run.info.status for run in (parent, *nested.values())} == {"FINISHED"}
    run = nested["cnn"]
    assert run.data.params == {
        **{name: str(value) for name, value in card.options.items()},
        "dataset": "mnist_5k",
        "dataset_fingerprint": card.dataset_fingerprint,
    }
    for name in ("loss", "val_accuracy", "learning_rate"):
        history = client.get_metric_history(run.info.run_id, f"train/{name}")
        assert [(point.step, point.value) for point in sorted(history, key=lambda point: point.step)] == [
            (row["epoch"], pytest.approx(row[name])) for row in trained.result.history
        ]
    assert run.data.metrics["evaluate/test_accuracy"] == 0.96
    assert nested["cnn_dropout"].data.metrics["evaluate/test_accuracy"] == 0.5
    for each in (parent, run):
        assert each.data.tags["kfp.run_id"] == "run-1"
        assert each.data.tags["kfp.run_url"] == "https://kubeflow.example/#/runs/details/run-1"
    assert run.data.tags["version.tensorflow"] == card.versions["tensorflow"]
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("mnist_5k", card.dataset_fingerprint)

    assert parent.info.run_name == "first"
    assert (parent.data.tags["selected"], parent.data.tags["good_enough"]) == ("cnn", "true")
    assert parent.data.metrics["evaluate/test_accuracy"] == 0.96
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["leaderboard.html"]


def test_registered_model_loads_and_answers_as_the_trained_one(
    options: TrackOptions, candidates: list[EvaluatedModel], page: Path, trained: SimpleNamespace
) -> None:
    track(options, candidates, page)
    _, nested = tracked(options)
    version = MlflowClient(options.mlflow_uri).get_model_version_by_alias(options.registered_model, "champion")
    assert version.run_id == nested["cnn"].info.run_id
    assert version.tags == {"kfp.run_id": "run-1"}

    examples = read_model_card(trained.model).examples
    pixels = np.stack([np.array(Image.open(io.BytesIO(base64.b64decode(e.png))))[..., np.newaxis] for e in examples])
    model = mlflow.pyfunc.load_model(f"models:/{options.registered_model}@champion")
    assert model.metadata.signature.inputs.input_types() == [np.uint8]
    answer = model.predict(pixels)
    np.testing.assert_allclose(answer["logits"], [example.logits for example in examples], atol=1e-4)
    names = read_model_card(trained.model).class_names
    assert list(answer["label"]) == [names[index] for index in answer["class_index"]]
    with pytest.raises(mlflow.exceptions.MlflowException, match="shape"):
        model.predict(pixels[:, :20])


def test_second_try_changes_nothing(options: TrackOptions, candidates: list[EvaluatedModel], page: Path) -> None:
    track(options, candidates, page)
    before = tracked(options)
    track(options, candidates, page)
    after = tracked(options)
    for old, new in zip((before[0], *before[1].values()), (after[0], *after[1].values()), strict=True):
        assert old.data.to_dictionary() == new.data.to_dictionary()
        assert old.outputs.to_dictionary() == new.outputs.to_dictionary()
    client = MlflowClient(options.mlflow_uri)
    assert len(client.search_model_versions(f"name = '{options.registered_model}'")) == 1
    assert len(client.get_metric_history(after[1]["cnn"].info.run_id, "train/loss")) == 3


def test_interrupted_try_is_continued(
    options: TrackOptions, candidates: list[EvaluatedModel], page: Path, tmp_path: Path
) -> None:
    best, other = candidates
    with pytest.raises(StageFailed, match="no numbered version folder"):
        track(options, [best, replace(other, directory=tmp_path)], page)
    first, nested = tracked(options)
    assert (first.info.status, set(nested)) == ("FAILED", {"cnn"})
    client, experiment_id = MlflowClient(options.mlflow_uri), first.info.experiment_id
    half_uploaded = client.create_logged_model(experiment_id, source_run_id=nested["cnn"].info.run_id)
    track(options, candidates, page)
    parent, nested = tracked(options)
    assert (parent.info.run_id, parent.info.status) == (first.info.run_id, "FINISHED")
    assert set(nested) == {"cnn", "cnn_dropout"}
    models = {model.source_run_id: model for model in client.search_logged_models([experiment_id])}
    assert half_uploaded.model_id not in {model.model_id for model in models.values()}
    for run in nested.values():
        assert [output.model_id for output in run.outputs.model_outputs] == [models[run.info.run_id].model_id]


def test_next_run_takes_over_the_alias_only_if_good_enough(
    options: TrackOptions, candidates: list[EvaluatedModel], page: Path
) -> None:
    client = MlflowClient(options.mlflow_uri)
    for run, good_enough, champion in (("run-1", True, "1"), ("run-2", False, "1"), ("run-3", True, "2")):
        track(options, candidates[:1], page, good_enough, run)
        assert client.get_model_version_by_alias(options.registered_model, "champion").version == champion


def component_inputs(candidate: EvaluatedModel, page: Path) -> dict[str, Any]:
    """What KFP's executor gives the component."""
    model = dsl.Model(
        name="model",
        uri=str(candidate.directory),
        metadata={"history": candidate.history, "dataset_uri": candidate.dataset_uri},
    )
    # A KFP backend adds properties of its own, which are no metrics.
    evaluation = dsl.Metrics(name="metrics", uri="/metrics", metadata={**candidate.scores, "store_session_info": "{}"})
    return {
        "models": [model],
        "evaluations": [evaluation],
        "best": dsl.Model(name="best", uri=model.uri),
        "leaderboard": dsl.HTML(name="leaderboard", uri=str(page)),
        "good_enough": True,
        "run_id": "run-1",
    }


def test_component_takes_what_kfp_gives(options: TrackOptions, candidates: list[EvaluatedModel], page: Path) -> None:
    inputs = component_inputs(candidates[0], page)
    names = ("mlflow_uri", "mlflow_experiment", "registered_model")
    track_component.python_func(**inputs, **{name: getattr(options, name) for name in names})
    parent, nested = tracked(options)
    assert (parent.info.run_name, set(nested)) == ("run-1", {"cnn"})
    assert {name for name in nested["cnn"].data.metrics if name.startswith("evaluate/")} == {
        f"evaluate/{name}" for name in SCORES
    }


def test_deployed_model_that_stays_registers_nothing(
    options: TrackOptions, candidates: list[EvaluatedModel], page: Path
) -> None:
    inputs = component_inputs(candidates[0], page)
    metadata = {"selected_uri": "/champion", "beaten_uri": inputs["models"][0].uri}
    inputs["best"] = dsl.Model(name="best", uri="/copy", metadata=metadata)
    names = ("mlflow_uri", "mlflow_experiment", "registered_model")
    track_component.python_func(**inputs, **{name: getattr(options, name) for name in names})
    parent, _ = tracked(options)
    assert (parent.data.tags["selected"], parent.data.tags["good_enough"]) == ("cnn", "false")
    client = MlflowClient(options.mlflow_uri)
    assert client.search_model_versions(f"name = '{options.registered_model}'") == []


@pytest.mark.parametrize("change", [{"evaluations": []}, {"best": dsl.Model(uri="/another")}])
def test_component_refuses_what_does_not_go_together(
    change: dict[str, Any], candidates: list[EvaluatedModel], page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = {**component_inputs(candidates[0], page), **change, "mlflow_uri": "http://127.0.0.1:9"}
    with pytest.raises(SystemExit):
        track_component.python_func(**inputs)
    assert "give one evaluation a model, and one of the models as the best" in capsys.readouterr().out


def test_deleted_experiment(options: TrackOptions, candidates: list[EvaluatedModel], page: Path) -> None:
    client = MlflowClient(options.mlflow_uri)
    client.delete_experiment(client.create_experiment(options.mlflow_experiment))
    with pytest.raises(StageFailed, match=f"mlflow_experiment = '{options.mlflow_experiment}': was deleted"):
        track(options, candidates, page)


@pytest.fixture
def answering(request: pytest.FixtureRequest) -> Iterator[str]:
    """A web server that answers everything with one status."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(request.param)
            self.end_headers()

        do_POST = do_GET

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("answering", "message"),
    [
        (401, "the MLflow server wants credentials, or other ones: set MLFLOW_TRACKING_USERNAME and"),
        (403, "does not allow this"),
        (404, "it is no MLflow server"),
    ],
    indirect=["answering"],
)
def test_server_that_refuses(answering: str, message: str) -> None:
    with pytest.raises(StageFailed) as error:
        check_server(answering)
    assert str(error.value).startswith(f"mlflow_uri = '{answering}': ")
    assert message in str(error.value)


def test_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StageFailed, match="no MLflow server can be reached there; `make mlflow` starts one"):
        check_server("http://127.0.0.1:9")
