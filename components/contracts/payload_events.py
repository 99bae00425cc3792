"""What is kept of a prediction: the request and the answer as they went over the wire, an event each.

A model server or KServe's agent sends them as CloudEvents, and names them alike where the agent keeps them itself.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

EventKind = Literal["request", "response"]

# The type of a CloudEvent ends in its kind.
EVENT_TYPE = "org.kubeflow.serving.inference."
KINDS: tuple[EventKind, ...] = ("request", "response")


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
