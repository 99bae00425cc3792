"""CloudEvents over HTTP, as a model server, KServe's agent and Knative's broker send them.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from kfp_image_classification.components.contracts.payload_events import NotAnEvent, PayloadEvent, kind_of
from kfp_image_classification.components.deploy.server.refused import Refused, bad_request

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


def from_request(headers: Mapping[str, str], body: bytes) -> PayloadEvent:
    """Reads the event of a request, in binary or structured mode.

    Args:
        headers: With names in lower case.
        body: Of the request.

    Raises:
        Refused: When it is no event of a payload log, or several at once.
    """
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == BATCH:
        raise Refused(415, "send one event a request, not a batch")
    attributes: Mapping[str, Any]
    if content_type == STRUCTURED:
        attributes, body = _structured(body)
    else:
        attributes = {name.removeprefix("ce-"): value for name, value in headers.items() if name.startswith("ce-")}
    identity = attributes.get("id")
    if not isinstance(identity, str) or not identity:
        raise bad_request("expected a CloudEvent with an id, in the header ce-id")
    try:
        kind = kind_of(str(attributes.get("type", "")))
    except NotAnEvent as error:
        raise bad_request(str(error)) from None
    return PayloadEvent(
        identity, kind, _time(attributes.get("time")), str(attributes.get("inferenceservicename", "")), body
    )


def _structured(body: bytes) -> tuple[Mapping[str, Any], bytes]:
    try:
        event = orjson.loads(body)
        if not isinstance(event, dict):
            raise ValueError("no object")
        if "data_base64" in event:
            return event, base64.b64decode(event["data_base64"], validate=True)
    except (ValueError, TypeError) as error:
        raise bad_request(f"not a CloudEvent in JSON: {error}") from None
    data = event.get("data")
    return event, data.encode() if isinstance(data, str) else orjson.dumps(data)


def _time(text: Any) -> datetime:
    """When the event was; now, where it does not say so in a form that is known."""
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        return datetime.now(UTC)
