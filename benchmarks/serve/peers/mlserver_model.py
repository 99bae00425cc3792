"""mlserver's runtime for the same model; it speaks V2 alone. Runs in an environment of its own."""

import base64
import io
import os

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from PIL import Image


class DigitModel(MLModel):
    """Answers one BYTES input of base64."""

    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(os.environ["ONNX_MODEL"], options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        files = [base64.b64decode(text) for text in payload.inputs[0].data]
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(file)))[..., np.newaxis] for file in files])
        logits = self.session.run(None, {"pixels": pixels})[0]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = powers / powers.sum(axis=1, keepdims=True)
        outputs = [
            ResponseOutput(
                name="class_index", shape=[len(files)], datatype="INT64", data=logits.argmax(axis=1).tolist()
            ),
            ResponseOutput(
                name="probabilities",
                shape=list(probabilities.shape),
                datatype="FP32",
                data=probabilities.ravel().tolist(),
            ),
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
