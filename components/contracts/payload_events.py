"""What is kept of a prediction: the request and the answer as they went over the wire, an event each.

A model server or KServe's agent sends them as CloudEvents. The collector keeps them as lines of JSON; KServe's agent
can write to a bucket itself, in a form of its own (pkg/logger/types.go and marshaller_json.go of KServe). Both are read
here.
"""

import base64
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

EventKind = Literal["request", "response"]

# The type of a CloudEvent ends in its kind.
EVENT_TYPE = "org.kubeflow.serving.inference."
KINDS: tuple[EventKind, ...] = ("request", "response")
LINES_SUFFIX = ".jsonl.gz"
KSERVE_SUFFIX = ".json"


@dataclass(frozen=True)
class PayloadEvent:
    """A request, or the answer to it.

    Attributes:
        id: The same for both.
        kind: Which of the two.
        time: When it was, with its zone.
        service: The service that was asked.
        body: As it was sent.
    """

    id: str
    kind: EventKind
    time: datetime
    service: str
    body: bytes


class NotAnEvent(ValueError):
    """Not an event of a payload log; the message says why."""


def kind_of(event_type: str) -> EventKind:
    """The kind that a CloudEvent's type tells.

    Raises:
        NotAnEvent: When it is another type.
    """
    for kind in KINDS:
        if event_type == EVENT_TYPE + kind:
            return kind
    raise NotAnEvent(f"type {event_type!r}: expected {EVENT_TYPE}request or {EVENT_TYPE}response")


def to_lines(events: Iterable[PayloadEvent]) -> bytes:
    """The content of a file of the collector."""
    lines = (
        json.dumps(
            {
                "id": event.id,
                "kind": event.kind,
                "time": event.time.isoformat(),
                "service": event.service,
                "body": base64.b64encode(event.body).decode(),
            }
        )
        for event in events
    )
    # The bodies are base64 of images, mostly: the fastest level takes the base64 away, and no level takes more.
    return gzip.compress("".join(f"{line}\n" for line in lines).encode(), compresslevel=1)


def from_file(name: str, content: bytes, written: datetime) -> Iterator[PayloadEvent]:
    """Reads a file of the collector or of KServe's agent.

    Args:
        name: Of the file, whose ending tells its form.
        content: Of the file.
        written: When the file was, for events that do not say when they were: KServe's before 0.18 or so.

    Raises:
        NotAnEvent: When the file holds something else, or is not whole.
    """
    try:
        if name.endswith(LINES_SUFFIX):
            for line in gzip.decompress(content).splitlines():
                yield _from_line(json.loads(line))
        elif name.endswith(KSERVE_SUFFIX):
            records = json.loads(content)
            for record in records if isinstance(records, list) else [records]:
                yield _from_kserve(record, written)
        else:
            raise NotAnEvent(f"expected a file that ends in {LINES_SUFFIX} or {KSERVE_SUFFIX}")
    except NotAnEvent:
        raise
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotAnEvent(f"it holds no whole events ({type(error).__name__}: {error})") from None


def _from_line(line: Mapping[str, Any]) -> PayloadEvent:
    if line["kind"] not in KINDS:
        raise NotAnEvent(f"kind {line['kind']!r}")
    return PayloadEvent(
        str(line["id"]),
        line["kind"],
        datetime.fromisoformat(line["time"]),
        str(line["service"]),
        base64.b64decode(line["body"]),
    )


def _from_kserve(record: Mapping[str, Any], written: datetime) -> PayloadEvent:
    # Releases write the names with a capital or without.
    known = {name.lower(): value for name, value in record.items()}
    time = known.get("occurrencetime") or ""
    return PayloadEvent(
        str(known["id"]),
        kind_of(str(known["reqtype"])),
        # Go writes year 1 for a time that nobody set.
        datetime.fromisoformat(time) if time and not time.startswith("0001-") else written,
        str(known.get("inferenceservice", "")),
        base64.b64decode(known.get("bytes") or ""),
    )
