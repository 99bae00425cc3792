"""A bound: the same work in as little Python as possible. No limits, no checks, no metrics, one URL.

Requests that are read in the same turn of the event loop share a batch.
"""

import asyncio
import base64
import sys
from typing import Any

import numpy as np
import onnxruntime
import orjson
import uvicorn

from kfp_image_classification.components.deploy.server.image_files import decode
from kfp_image_classification.components.step.cpu_limit import usable_cores

MAX_BATCH = 64


class Application:
    def __init__(self, onnx: str) -> None:
        options = onnxruntime.SessionOptions()
        # Unless told, it has a thread for each core of the machine, and puts them there, whatever it may use.
        options.intra_op_num_threads = usable_cores()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(onnx, options)
        self.waiting: list[tuple[list[bytes], asyncio.Future[Any]]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        answer = b"{}"
        if body:
            files = [base64.b64decode(one["b64"]) for one in orjson.loads(body)["instances"]]
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            if not self.waiting:
                loop.call_soon(self.compute)
            self.waiting.append((files, future))
            index, probabilities = await future
            rows = zip(index.tolist(), probabilities.tolist(), strict=True)
            answer = orjson.dumps({"predictions": [{"class_index": one, "probabilities": row} for one, row in rows]})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def compute(self) -> None:
        waiting, images = [], 0
        while self.waiting and images < MAX_BATCH:
            waiting.append(self.waiting.pop(0))
            images += len(waiting[-1][0])
        if self.waiting:
            asyncio.get_running_loop().call_soon(self.compute)
        logits = self.session.run(
            None, {"pixels": decode([f for files, _ in waiting for f in files], (28, 28, 1), 1 << 30)}
        )[0]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        index, probabilities = logits.argmax(axis=1), powers / powers.sum(axis=1, keepdims=True)
        start = 0
        for files, future in waiting:
            end = start + len(files)
            future.set_result((index[start:end], probabilities[start:end]))
            start = end


if __name__ == "__main__":
    application: Any = Application(sys.argv[1])
    uvicorn.run(application, port=int(sys.argv[2]), lifespan="off", ws="none", log_level="warning", access_log=False)
