"""A SavedModel as an MLflow model, with its signature; TensorFlow is needed to load it, not to write it."""

import re
import tempfile
import warnings
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, Run
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from kfp_image_classification.components.contracts.model_card import ModelCard, newest_version, read_model_card

PREDICTOR = Path(__file__).with_name("saved_model_predictor.py")


def model_signature(card: ModelCard) -> ModelSignature:
    """What the model's signature `pixels` takes and answers."""
    classes = len(card.class_names)
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, *card.image_shape))]),
        outputs=Schema(
            [
                TensorSpec(np.dtype(np.float32), (-1, classes), "logits"),
                TensorSpec(np.dtype(np.float32), (-1, classes), "probabilities"),
                TensorSpec(np.dtype(np.int64), (-1,), "class_index"),
                TensorSpec(np.dtype(str), (-1,), "label"),
            ]
        ),
    )


def log_model(client: MlflowClient, model_directory: Path, run: Run) -> LoggedModel:
    """Makes a model an output of a run, unless it is one already.

    Args:
        client: The server.
        model_directory: A model from train.
        run: The run.
    """
    model = _uploaded(client, run) or _upload(client, model_directory, run)
    if run.outputs is None or model.model_id not in {output.model_id for output in run.outputs.model_outputs}:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model


def _uploaded(client: MlflowClient, run: Run) -> LoggedModel | None:
    models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    for model in models:
        if model.status != "READY":  # an earlier try was interrupted while it uploaded
            client.delete_logged_model(model.model_id)
    return next((model for model in models if model.status == "READY"), None)


def name_for_mlflow(name: str) -> str:
    """A name as MLflow takes it for a logged model."""
    return re.sub(r"[/:.%\"']", "-", name)


def _upload(client: MlflowClient, model_directory: Path, run: Run) -> LoggedModel:
    card = read_model_card(model_directory)
    created = client.create_logged_model(
        run.info.experiment_id,
        name=name_for_mlflow(card.model_type),
        source_run_id=run.info.run_id,
        params={name: str(value) for name, value in card.options.items()},
        tags={"dataset_fingerprint": card.dataset_fingerprint},
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # MLflow would like an example of an input, and would load TensorFlow to try it.
        warnings.filterwarnings("ignore", ".*An input example was not provided")
        packed = Path(folder, "model")
        mlflow.pyfunc.save_model(
            packed,
            python_model=str(PREDICTOR),
            artifacts={"saved_model": str(newest_version(model_directory))},
            signature=model_signature(card),
            pip_requirements=[
                f"mlflow=={mlflow.__version__}",
                f"numpy=={np.__version__}",
                f"tensorflow=={card.versions['tensorflow']}",
            ],
            metadata={"class_names": card.class_names},
            mlflow_model=Model(model_id=created.model_id, run_id=run.info.run_id),
        )
        client.log_model_artifacts(created.model_id, str(packed))
    return client.finalize_logged_model(created.model_id, "READY")
