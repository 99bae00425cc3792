"""The model server: `python -m components.deploy.server --model_name NAME --model_dir DIR --http_port PORT`.

KServe's own REST server (V1 and V2 protocols) around the exported SavedModel. The options are named as KServe names
them, so the same program serves as a custom ServingRuntime.
"""

import argparse
import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferRequest, InferResponse, Model, ModelRepository
from kserve.errors import InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer

from components.deploy.protocol import Answer, Images, images_from_v1, images_from_v2, v1_response, v2_response
from components.deploy.smoke import request_body
from components.errors import StageFailed
from components.lean_import import import_without
from components.model_card import newest_version, read_model_card
from components.process_owner import leave_with_owner


class ImageClassifier(Model):
    """Serves a model directory from train."""

    def __init__(self, name: str, directory: Path) -> None:
        super().__init__(name)
        self._directory = directory
        self._card = read_model_card(directory)

    def load(self) -> bool:
        """Loads the newest version and answers its examples once, so that the first client does not wait."""
        with import_without("keras"):
            import tensorflow as tf

        loaded = tf.saved_model.load(str(newest_version(self._directory)))
        self._loaded = loaded  # the signatures do not keep the model alive
        self._from_bytes = loaded.signatures["serving_default"]
        self._from_pixels = loaded.signatures["pixels"]
        self._answer(images_from_v1(request_body(self._card.examples), self._card.image_shape))
        self.ready = True
        return True

    async def predict(
        self,
        payload: dict[str, Any] | InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> dict[str, Any] | InferResponse:
        """Answers one request of either protocol."""
        if isinstance(payload, InferRequest):
            images = images_from_v2(payload, self._card.image_shape)
            return v2_response(await asyncio.to_thread(self._answer, images), payload)
        images = images_from_v1(payload, self._card.image_shape)
        return v1_response(await asyncio.to_thread(self._answer, images))

    def _answer(self, images: Images) -> Answer:
        import tensorflow as tf

        try:
            if images.pixels is not None:
                tensors = self._from_pixels(tf.constant(images.pixels))
            else:
                tensors = self._from_bytes(tf.constant(images.encoded))
        except tf.errors.InvalidArgumentError:
            raise InvalidInput("an image cannot be decoded; expected PNG or JPEG") from None
        answer: Answer = {
            name: np.asarray(tensors[name]) for name in ("label", "class_index", "probabilities", "logits")
        }
        return answer


def main() -> None:
    """Loads the model, then listens until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m components.deploy.server", description=__doc__)
    parser.add_argument("--model_name", required=True, help="the model's name in URLs")
    parser.add_argument("--model_dir", required=True, type=Path, help="folder with numbered version folders")
    parser.add_argument("--http_port", type=int, default=8080, help="port to listen on (default 8080)")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (default all)")
    arguments = parser.parse_args()
    leave_with_owner()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    try:
        model = ImageClassifier(arguments.model_name, arguments.model_dir)
        model.load()
    except StageFailed as error:
        sys.exit(f"error: {error}")
    repository = ModelRepository()
    repository.update(model)
    server = RESTServer(
        "kserve.model_server:app", DataPlane(repository), ModelRepositoryExtension(repository), arguments.http_port
    )
    server.config.host = arguments.host  # KServe's server listens on all addresses, whatever it is told
    asyncio.run(server.start())


if __name__ == "__main__":
    main()
