"""How MLflow loads a tracked model: this file travels with it, and so depends on nothing of this package."""

import tempfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np


class SavedModelPredictor(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """Answers uint8 pixels [n, height, width, channels] as the model server does: preprocessing is in the graph."""

    def load_context(self, context: Any) -> None:
        import tensorflow as tf

        # By way of a link: TensorFlow takes brackets in a path for a pattern.
        with tempfile.TemporaryDirectory() as directory:
            link = Path(directory, "saved_model")
            link.symlink_to(Path(context.artifacts["saved_model"]).absolute())
            self._model = tf.saved_model.load(str(link))

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> dict[str, Any]:
        import tensorflow as tf

        answer = self._model.signatures["pixels"](tf.constant(model_input, tf.uint8))
        plain = {name: tensor.numpy() for name, tensor in answer.items()}
        return {**plain, "label": plain["label"].astype(str)}


mlflow.models.set_model(SavedModelPredictor())
