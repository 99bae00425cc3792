"""The gRPC side of the model server: KServe's V2 protocol, inference.GRPCInferenceService.

The messages are kserve's generated ones. Its server is not used: it logs every request, and offers to unload the model.
"""

import importlib.util
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from kfp_image_classification.components.deploy.server import protocol_v2
from kfp_image_classification.components.deploy.server.classifier import Classifier
from kfp_image_classification.components.deploy.server.refused import Refused, bad_request
from kfp_image_classification.components.deploy.server.server_metrics import IN_FLIGHT, count_request

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    503: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
# The field of InferTensorContents in which a datatype's values travel when they are not raw.
CONTENTS = {
    "BYTES": "bytes_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


def _kserve_messages() -> ModuleType:
    # `import kserve` takes seconds and 150 MB, for its client of the Kubernetes API; this file of it stands alone.
    package = importlib.util.find_spec("kserve")
    if package is None or package.origin is None:
        raise ImportError("kserve is not installed")
    file = Path(package.origin).parent / "protocol" / "grpc" / "grpc_predict_v2_pb2.py"
    spec = importlib.util.spec_from_file_location("kserve_grpc_predict_v2_pb2", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class GrpcServer:
    """Listens with KServe's V2 protocol.

    Args:
        classifier: What answers.
        address: Host and port.
        shared: Whether other processes listen there, too.
        max_message: Largest request, in bytes.
        log: For unexpected errors.
    """

    def __init__(
        self, classifier: Classifier, address: str, shared: bool, max_message: int, log: logging.Logger
    ) -> None:
        self._classifier = classifier
        self._log = log
        self._messages = _kserve_messages()
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message),
                ("grpc.so_reuseport", int(shared)),  # unasked, it would share the port of another server
            ]
        )
        methods = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
        }
        handlers = {name: self._handler(name, method) for name, method in methods.items()}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),)
        )
        self.port = self._server.add_insecure_port(address)

    async def start(self) -> None:
        """Begins to answer."""
        await self._server.start()

    async def stop(self, seconds: float) -> None:
        """Takes no new requests and lets those that run end within that time."""
        await self._server.stop(seconds)

    def _handler(self, name: str, method: Callable[[Any], Awaitable[Any]]) -> Any:
        read = getattr(self._messages, f"{name}Request").FromString

        async def answered(request: bytes, context: Any) -> Any:
            try:
                return await method(read(request))
            except DecodeError:
                _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"this is no {name}Request of KServe's V2 protocol")
            except Refused as refused:
                _refuse(context, CODES[refused.status], refused.reason)
            except Exception:
                identity = uuid.uuid4().hex[:12]
                self._log.exception("internal error %s at %s", identity, name)
                _refuse(context, grpc.StatusCode.INTERNAL, f"internal error {identity}; the server's log has more")
            return None  # gRPC sends no answer with these codes

        return grpc.unary_unary_rpc_method_handler(
            answered,
            request_deserializer=None,  # gRPC's own error of one that fails is no word for a client
            response_serializer=getattr(self._messages, f"{name}Response").SerializeToString,
        )

    async def _server_live(self, _: Any) -> Any:
        return self._messages.ServerLiveResponse(live=True)

    async def _server_ready(self, _: Any) -> Any:
        return self._messages.ServerReadyResponse(ready=not self._classifier.leaving)

    async def _model_ready(self, request: Any) -> Any:
        self._check_name(request.name, request.version)
        return self._messages.ModelReadyResponse(ready=not self._classifier.leaving)

    async def _server_metadata(self, _: Any) -> Any:
        return self._messages.ServerMetadataResponse(name="image-classifier", version="2")

    async def _model_metadata(self, request: Any) -> Any:
        self._check_name(request.name, request.version)
        model = self._classifier.model
        return self._messages.ModelMetadataResponse(
            **protocol_v2.model_metadata(self._classifier.name, model.version, model.card)
        )

    async def _model_infer(self, request: Any) -> Any:
        start = time.perf_counter()
        status = "INTERNAL"
        IN_FLIGHT.inc()
        try:
            response = await self._inferred(request)
            status = "OK"
            return response
        except Refused as refused:
            status = CODES[refused.status].name
            raise
        finally:
            IN_FLIGHT.dec()
            count_request("grpc", status, time.perf_counter() - start)

    async def _inferred(self, request: Any) -> Any:
        self._check_name(request.model_name, request.model_version)
        model = self._classifier.model
        outputs = protocol_v2.wanted_outputs([(output.name, False) for output in request.outputs], as_raw=False)
        images = _images(request, model.card.image_shape)
        answer = await self._classifier.answer(model, images)
        raw = bool(request.raw_input_contents)  # an answer is raw if the request was
        response = self._messages.ModelInferResponse(
            model_name=self._classifier.name, model_version=model.version, id=request.id
        )
        for name in outputs:
            values = answer[name]
            output = response.outputs.add(name=name, datatype=protocol_v2.OUTPUT_TYPES[name], shape=list(values.shape))
            if raw:
                response.raw_output_contents.append(protocol_v2.raw_output(name, values))
            elif name == "label":
                output.contents.bytes_contents.extend(label.encode() for label in values.tolist())
            else:
                getattr(output.contents, CONTENTS[protocol_v2.OUTPUT_TYPES[name]]).extend(values.ravel().tolist())
        return response

    def _check_name(self, name: str, version: str) -> None:
        if name != self._classifier.name:
            raise Refused(404, f"there is no model {name!r}, but {self._classifier.name!r}")
        if version and version != self._classifier.model.version:
            raise Refused(404, f"version {version} is not served, but {self._classifier.model.version}")


def _images(request: Any, image_shape: tuple[int, int, int]) -> list[bytes] | np.ndarray:
    if len(request.inputs) != 1:
        raise bad_request(f"expected one input, image_bytes or pixels, got {len(request.inputs)}")
    tensor = request.inputs[0]
    shape = protocol_v2.checked_shape(list(tensor.shape))
    if request.raw_input_contents:
        if len(request.raw_input_contents) != 1 or tensor.HasField("contents"):
            raise bad_request("expected one raw_input_contents for the one input, and no contents")
        return protocol_v2.images_from_raw(request.raw_input_contents[0], tensor.datatype, shape, image_shape)
    if tensor.datatype not in CONTENTS:
        raise bad_request(f"datatype = {tensor.datatype!r}: expected one of {', '.join(CONTENTS)}")
    field = CONTENTS[tensor.datatype]
    if others := {known.name for known, _ in tensor.contents.ListFields()} - {field}:
        raise bad_request(f"contents: {tensor.datatype} belongs in {field}, and not in {', '.join(sorted(others))}")
    values = getattr(tensor.contents, field)
    if tensor.datatype == "BYTES":
        return protocol_v2.counted(list(values), shape)
    return protocol_v2.images_from_numbers(list(values), tensor.datatype, shape, image_shape)


def _refuse(context: Any, code: grpc.StatusCode, reason: str) -> None:
    # Not context.abort: its error and the context know each other, and would keep the request in memory.
    context.set_code(code)
    context.set_details(reason)
