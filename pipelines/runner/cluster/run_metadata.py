"""Reads a run's leaderboard from the metadata store of Kubeflow Pipelines, as its UI does: gRPC-Web on the same host.

The runs API of Kubeflow Pipelines 2.17 tells nothing of artifacts; their metadata is in ML Metadata (MLMD). The few
messages that are needed are described here, with the field numbers of
https://github.com/kubeflow/pipelines/tree/2.17.0/third_party/ml-metadata.
"""

import ssl
import struct
from typing import Any

import httpx
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message,
    message_factory,
    struct_pb2,
)
from pydantic import ValidationError

from kfp_image_classification.components.select.leaderboard import Leaderboard
from kfp_image_classification.components.step.direct_network import http_client
from kfp_image_classification.components.step.errors import StageFailed

SERVICE = "ml_metadata.MetadataStoreService"
RUN_CONTEXT_TYPE = "system.PipelineRun"
# Metadata that select gives its leaderboard; a struct is stored inside another one, under this name.
RANKING, STRUCT = "ranking", "struct"
SECONDS = 10.0
_TRAILER = 0x80

_MESSAGES = {
    "Value": {"struct_value": (4, ".google.protobuf.Struct")},
    # An entry of a map, as it travels.
    "Property": {"key": (1, "string"), "value": (2, ".ml_metadata.Value")},
    "Artifact": {"id": (1, "int64"), "custom_properties": (5, "repeated .ml_metadata.Property")},
    "Context": {"id": (1, "int64")},
    "GetContextByTypeAndNameRequest": {"type_name": (1, "string"), "context_name": (2, "string")},
    "GetContextByTypeAndNameResponse": {"context": (1, ".ml_metadata.Context")},
    "GetArtifactsByContextRequest": {"context_id": (1, "int64")},
    "GetArtifactsByContextResponse": {"artifacts": (1, "repeated .ml_metadata.Artifact")},
}


def _described() -> dict[str, Any]:
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="run_metadata.proto", package="ml_metadata", syntax="proto3", dependency=[struct_pb2.DESCRIPTOR.name]
    )
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            kind, is_repeated = kind.removeprefix("repeated "), kind.startswith("repeated ")
            scalar = {"string": field_type.TYPE_STRING, "int64": field_type.TYPE_INT64}.get(kind)
            described.field.add(
                name=field,
                number=number,
                label=field_type.LABEL_REPEATED if is_repeated else field_type.LABEL_OPTIONAL,
                type=scalar or field_type.TYPE_MESSAGE,
                type_name=None if scalar else kind,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ml_metadata.{name}")) for name in _MESSAGES
    }


MESSAGES = _described()


def leaderboard(host: str, run_id: str, token: str = "", ca_cert: str = "") -> Leaderboard | None:
    """The ranking of a run's models; None when the run has none, because it ended before select.

    Args:
        host: Address of Kubeflow Pipelines.
        run_id: The run.
        token: Bearer token; empty for none.
        ca_cert: File with the certificates to trust; empty for the usual ones.

    Raises:
        StageFailed: When the store does not answer as it should.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    trusted = ssl.create_default_context(cafile=ca_cert or None)
    try:
        connection = http_client(host, base_url=host, headers=headers, verify=trusted, timeout=SECONDS)
    except ValueError as error:
        raise StageFailed(str(error)) from None
    with connection as client:
        context = _call(client, "GetContextByTypeAndName", type_name=RUN_CONTEXT_TYPE, context_name=run_id).context
        artifacts = _call(client, "GetArtifactsByContext", context_id=context.id).artifacts
    for artifact in artifacts:
        for entry in artifact.custom_properties:
            if entry.key == RANKING:
                ranking = json_format.MessageToDict(entry.value.struct_value).get(STRUCT, {})
                try:
                    return Leaderboard.model_validate(ranking)
                except ValidationError as error:
                    raise StageFailed(f"the run's leaderboard is of another version: {error}") from None
    return None


def _call(client: httpx.Client, method: str, **fields: Any) -> Any:
    content = MESSAGES[f"{method}Request"](**fields).SerializeToString()
    headers = {"Content-Type": "application/grpc-web+proto", "X-Grpc-Web": "1"}
    try:
        answer = client.post(f"/{SERVICE}/{method}", content=framed(content), headers=headers).raise_for_status()
        parsed = MESSAGES[f"{method}Response"]()
        parsed.ParseFromString(_payload(answer))
        return parsed
    except (httpx.HTTPError, message.DecodeError, struct.error) as error:
        raise StageFailed(f"the metadata store does not answer: {error}") from None


def framed(content: bytes, flags: int = 0) -> bytes:
    """One frame of gRPC-Web: a byte of flags, the length, the content."""
    return struct.pack(">BI", flags, len(content)) + content


def _payload(answer: httpx.Response) -> bytes:
    status = answer.headers.get("grpc-status", "0")
    payload, rest = b"", answer.content
    while rest:
        flags, length = struct.unpack(">BI", rest[:5])
        content, rest = rest[5 : 5 + length], rest[5 + length :]
        if flags & _TRAILER:
            trailers = dict(line.split(":", 1) for line in content.decode().lower().splitlines() if ":" in line)
            status = trailers.get("grpc-status", status).strip()
        else:
            payload += content
    if status != "0":
        raise StageFailed(f"the metadata store refuses: gRPC status {status}")
    return payload
