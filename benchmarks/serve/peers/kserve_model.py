"""A model server as kserve's documentation writes one: a kserve.Model, and ModelServer().start.

With --backend tensorflow the SavedModel answers, as in the documentation; with onnx, ONNX Runtime does.
"""

import argparse
import base64
import io
from typing import Any

import kserve
import numpy as np
from kserve import logging
from PIL import Image


class DigitModel(kserve.Model):
    """Answers {"instances": [{"b64": ...}]}."""

    def __init__(self, name: str, folder: str, backend: str) -> None:
        super().__init__(name)
        if backend == "tensorflow":
            import tensorflow as tf

            self.tf = tf
            self.model = tf.saved_model.load(folder)
            self.answer = self.with_tensorflow
        else:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            self.session = onnxruntime.InferenceSession(f"{folder}/assets.extra/model.onnx", options)
            self.answer = self.with_onnx
        self.ready = True

    def with_tensorflow(self, files: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        answer = self.model.signatures["serving_default"](self.tf.constant(files))
        return answer["class_index"].numpy(), answer["probabilities"].numpy()

    def with_onnx(self, files: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(file)))[..., np.newaxis] for file in files])
        logits = self.session.run(None, {"pixels": pixels})[0]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return logits.argmax(axis=1), powers / powers.sum(axis=1, keepdims=True)

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        classes, probabilities = self.answer([base64.b64decode(one["b64"]) for one in payload["instances"]])
        rows = zip(classes.tolist(), probabilities.tolist(), strict=True)
        return {"predictions": [{"class_index": index, "probabilities": row} for index, row in rows]}


parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
parser.add_argument("--folder", required=True)
parser.add_argument("--backend", required=True)

if __name__ == "__main__":
    arguments = parser.parse_args()
    logging.configure_logging(arguments.log_config_file)
    kserve.ModelServer().start([DigitModel(arguments.model_name, arguments.folder, arguments.backend)])
