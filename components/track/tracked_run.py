"""Writes a pipeline run to MLflow: a parent run, a nested run a model, and the selected model in the registry.

Everything is looked up by the pipeline run's id before it is made: a step that runs again continues where the first one
stopped, and leaves alone what is there.
"""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModel, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from kfp_image_classification.components.contracts.model_card import ModelCard, read_model_card
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.track.logged_model import log_model
from kfp_image_classification.components.track.options import TrackOptions

PIPELINE_RUN_TAG = "kfp.run_id"
METRICS_A_REQUEST = 1000  # the server's limit


@dataclass(frozen=True)
class PipelineRun:
    """The run in Kubeflow Pipelines; its id identifies it for good, its name is for people."""

    id: str
    name: str


@dataclass(frozen=True)
class EvaluatedModel:
    """One candidate.

    Attributes:
        directory: A model from train.
        history: One row an epoch, with `epoch` and numbers.
        scores: The metrics of its evaluation.
        dataset_uri: Where the data set lies on which it was trained.
        selected: Whether it is the best one.
    """

    directory: Path
    history: Sequence[Mapping[str, Any]]
    scores: Mapping[str, float]
    dataset_uri: str
    selected: bool


def track_run(
    client: MlflowClient,
    options: TrackOptions,
    run: PipelineRun,
    models: Sequence[EvaluatedModel],
    good_enough: bool,
    leaderboard: Path,
    log: logging.Logger,
) -> None:
    """Tracks a pipeline run, and registers the selected model if it is good enough.

    Args:
        client: The MLflow server.
        options: Where things go there.
        run: The pipeline run.
        models: All candidates.
        good_enough: Whether the selected model is to be deployed; only then it is registered.
        leaderboard: The page that ranks them.
        log: Told what happens.

    Raises:
        StageFailed: When the experiment was deleted.
        MlflowException: When the server fails.
    """
    experiment_id = _experiment(client, options.mlflow_experiment)
    tags = _pipeline_tags(run, options)
    parent = _find_run(client, experiment_id, run) or client.create_run(
        experiment_id, tags=tags, run_name=run.name or run.id
    )
    log.info("tracking in %s/#/experiments/%s/runs/%s", options.mlflow_uri, experiment_id, parent.info.run_id)
    try:
        for model in models:
            tracked = _track_model(client, parent, model, tags, log)
            if model.selected:
                _track_selection(client, parent, model, good_enough)
                if good_enough:
                    _register(client, options, run, tracked, log)
        client.log_artifact(parent.info.run_id, str(leaderboard))
        client.set_terminated(parent.info.run_id, "FINISHED")
    except (MlflowException, StageFailed):
        with contextlib.suppress(MlflowException):
            client.set_terminated(parent.info.run_id, "FAILED")
        raise


def _experiment(client: MlflowClient, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        with contextlib.suppress(MlflowException):  # another run may just have made it
            return str(client.create_experiment(name))
        experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise StageFailed(
            f"mlflow_experiment = {name!r}: was deleted, or may not be made; restore it in MLflow or give another name"
        )
    return str(experiment.experiment_id)


def _pipeline_tags(run: PipelineRun, options: TrackOptions) -> dict[str, str]:
    tags = {PIPELINE_RUN_TAG: run.id, "kfp.run_name": run.name}
    if options.kfp_ui:
        tags["kfp.run_url"] = f"{options.kfp_ui}/#/runs/details/{run.id}"
    return tags


def _find_run(client: MlflowClient, experiment_id: str, run: PipelineRun, model_type: str = "") -> Run | None:
    """The nested run of a model, or, without one, the parent."""
    found = client.search_runs([experiment_id], f"tags.`{PIPELINE_RUN_TAG}` = '{run.id}'")
    return next((each for each in found if each.data.tags.get("model_type", "") == model_type), None)


def _track_model(
    client: MlflowClient, parent: Run, model: EvaluatedModel, tags: Mapping[str, str], log: logging.Logger
) -> LoggedModel:
    card = read_model_card(model.directory)
    experiment_id = parent.info.experiment_id
    run = PipelineRun(tags[PIPELINE_RUN_TAG], tags["kfp.run_name"])
    nested = _find_run(client, experiment_id, run, card.model_type) or client.create_run(
        experiment_id,
        tags={**tags, "model_type": card.model_type, "mlflow.parentRunId": parent.info.run_id},
        run_name=card.model_type,
    )
    run_id, started = nested.info.run_id, nested.info.start_time
    logged = log_model(client, model.directory, nested)
    if nested.info.status == "FINISHED":
        log.info("%s is there already", card.model_type)
        return logged
    client.log_batch(run_id, params=_params(card), tags=_card_tags(card))
    client.log_inputs(run_id, [_dataset(card, model.dataset_uri)])
    metrics = _metrics(model, started, logged.model_id)
    for start in range(0, len(metrics), METRICS_A_REQUEST):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_A_REQUEST])
    client.set_terminated(run_id, "FINISHED")
    log.info("%s: %d epochs, %d parameters and the model", card.model_type, len(model.history), card.parameters)
    return logged


def _params(card: ModelCard) -> list[Param]:
    values = {**card.options, "dataset": card.dataset, "dataset_fingerprint": card.dataset_fingerprint}
    return [Param(name, str(value)) for name, value in values.items()]


def _card_tags(card: ModelCard) -> list[RunTag]:
    tags = {
        "dataset_fingerprint": card.dataset_fingerprint,
        **{f"version.{package}": version for package, version in card.versions.items()},
    }
    if card.started_from:
        tags["started_from"] = card.started_from.words
    if card.git_revision:
        tags["mlflow.source.git.commit"] = card.git_revision
    return [RunTag(name, value) for name, value in tags.items()]


def _dataset(card: ModelCard, uri: str) -> DatasetInput:
    dataset = Dataset(name=card.dataset, digest=card.dataset_fingerprint, source_type="kfp", source=uri)
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "training")])


def _metrics(model: EvaluatedModel, timestamp: int, model_id: str) -> list[Metric]:
    """Metrics of all epochs, then of the evaluation of the model that came out.

    All have one time, so that a second try writes the same rows.
    """
    epochs = [
        Metric(f"train/{name}", float(value), timestamp, int(row["epoch"]))
        for row in model.history
        for name, value in row.items()
        if name != "epoch"
    ]
    last = len(model.history)
    return epochs + [
        Metric(f"evaluate/{name}", float(value), timestamp, last, model_id) for name, value in model.scores.items()
    ]


def _track_selection(client: MlflowClient, parent: Run, model: EvaluatedModel, good_enough: bool) -> None:
    tags = {"selected": read_model_card(model.directory).model_type, "good_enough": str(good_enough).lower()}
    client.log_batch(
        parent.info.run_id,
        tags=[RunTag(name, value) for name, value in tags.items()],
        metrics=[
            Metric(f"evaluate/{name}", float(value), parent.info.start_time, 0) for name, value in model.scores.items()
        ],
    )


def _register(
    client: MlflowClient, options: TrackOptions, run: PipelineRun, model: LoggedModel, log: logging.Logger
) -> None:
    name = options.registered_model
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{model.source_run_id}'")
    version = next(iter(versions), None) or client.create_model_version(
        name,
        source=f"models:/{model.model_id}",
        run_id=model.source_run_id,
        model_id=model.model_id,
        tags={PIPELINE_RUN_TAG: run.id},
    )
    client.set_registered_model_alias(name, options.alias, version.version)
    log.info("registered %s as %s version %s, alias %s", model.name, name, version.version, options.alias)
