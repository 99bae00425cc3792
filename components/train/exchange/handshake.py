"""What two workers say before they sum together. Pure: each side is a generator that yields what it says, and is sent
what it hears."""

import secrets
from collections.abc import Generator
from dataclasses import dataclass, field

from kfp_image_classification.components.train.exchange.failures import Refused
from kfp_image_classification.components.train.exchange.messages import (
    NONCE_BYTES,
    VERSION,
    Greeting,
    Kind,
    Reason,
    is_sealed,
    job_digest,
    read_greeting,
)
from kfp_image_classification.components.train.exchange.schedule import neighbours


@dataclass(frozen=True)
class Place:
    """This worker's place in a job.

    Attributes:
        job: Name of the job.
        attempt: Which of the job's attempts this is.
        index: This worker's.
        addresses: host:port of all workers.
        values: How many values it sums at once, at most.
        token: The job's secret.
    """

    job: str
    attempt: int
    index: int
    addresses: tuple[str, ...]
    values: int
    token: bytes = field(repr=False)

    @property
    def workers(self) -> int:
        return len(self.addresses)

    def greeting(self, kind: Kind, receiver: int) -> Greeting:
        return Greeting(
            kind=kind,
            workers=self.workers,
            sender=self.index,
            receiver=receiver,
            attempt=self.attempt,
            values=self.values,
            job=job_digest(self.job),
            nonce=secrets.token_bytes(NONCE_BYTES),
        )


@dataclass(frozen=True)
class Met:
    """A handshake that went well.

    Attributes:
        peer: Index of the other worker.
        last: What is still to be said to it.
    """

    peer: int
    last: bytes = b""


class NotMet(Exception):
    """The other is not the worker that was expected.

    Attributes:
        answer: What is still to be said to it.
        refused: Set when waiting for another is of no use.
    """

    def __init__(self, why: str, answer: bytes = b"", refused: Refused | None = None) -> None:
        self.answer = answer
        self.refused = refused
        super().__init__(why)


Handshake = Generator[bytes, bytes, Met]


def call(place: Place, peer: int) -> Handshake:
    """The side of the worker that connects."""
    hello = place.greeting(Kind.HELLO, peer)
    said = hello.sealed(place.token, b"")
    answer = yield said
    heard = read_greeting(answer)
    if heard is None or heard.kind not in (Kind.WELCOME, Kind.REFUSAL):
        raise NotMet("what listens there is no worker")
    knows_token = is_sealed(answer, place.token, said)
    if heard.kind == Kind.REFUSAL:
        why = f"it refuses this worker: {_sentence(heard.reason, heard, hello)}"
        final = knows_token and _is_final(heard.reason, place, heard)
        refused = Refused(peer, f"worker {peer}: {why}", _is_permanent(heard.reason)) if final else None
        raise NotMet(why, refused=refused)
    reason = _judge(place, heard, knows_token)
    if reason == Reason.NONE and heard.sender != peer:
        reason = Reason.INDEX
    if reason != Reason.NONE:
        raise NotMet(f"another worker listens there: {_sentence(reason, hello, heard)}")
    return Met(peer, hello.to(Kind.READY).sealed(place.token, said + answer))


def answer(place: Place) -> Handshake:
    """The side of the worker that listens."""
    said = yield b""
    heard = read_greeting(said)
    if heard is None or heard.kind != Kind.HELLO:
        raise NotMet("it does not speak as a worker does")
    own = place.greeting(Kind.WELCOME, heard.sender)
    reason = _judge(place, heard, is_sealed(said, place.token, b""))
    callers = [peer for peer in neighbours(place.workers, place.index) if peer > place.index]
    if reason == Reason.NONE and heard.sender not in callers:
        reason = Reason.INDEX
    if reason != Reason.NONE:
        why = f"worker {heard.sender} calls, but does not fit: {_sentence(reason, own, heard)}"
        refused = Refused(heard.sender, why, _is_permanent(reason)) if _is_final(reason, place, heard) else None
        raise NotMet(why, own.to(Kind.REFUSAL, reason).sealed(place.token, said), refused)
    welcome = own.sealed(place.token, said)
    ready = yield welcome
    if not is_sealed(ready, place.token, said + welcome):
        raise NotMet("it repeats what another worker said once")
    return Met(heard.sender)


def _judge(place: Place, other: Greeting, knows_token: bool) -> Reason:
    """Whether another worker fits; one that does not know the token is believed nothing."""
    if other.job != job_digest(place.job):
        return Reason.JOB
    if not knows_token:
        return Reason.TOKEN
    if other.version != VERSION:
        return Reason.VERSION
    if other.attempt != place.attempt:
        return Reason.ATTEMPT
    if (other.workers, other.values) != (place.workers, place.values):
        return Reason.SETTINGS
    return Reason.NONE if other.receiver == place.index else Reason.INDEX


def _is_final(reason: Reason, place: Place, other: Greeting) -> bool:
    """Whether it is of no use to wait for another that fits.

    A worker of an older attempt, or of another job, is about to go, and its address gets another.
    """
    return _is_permanent(reason) or (reason == Reason.ATTEMPT and other.attempt > place.attempt)


def _is_permanent(reason: Reason) -> bool:
    return reason in (Reason.VERSION, Reason.SETTINGS)


def _sentence(reason: Reason, own: Greeting, other: Greeting) -> str:
    """Why `own` refuses `other`."""
    return {
        Reason.NONE: "for no reason",
        Reason.VERSION: f"version {other.version} of the protocol instead of {own.version}; all need the same image",
        Reason.JOB: "it belongs to another job",
        Reason.TOKEN: "it does not know the job's token",
        Reason.ATTEMPT: f"it belongs to attempt {other.attempt} of the job instead of attempt {own.attempt}",
        Reason.SETTINGS: f"it sums up to {other.values} values among {other.workers} workers, instead of {own.values} "
        f"among {own.workers}",
        Reason.INDEX: f"it is worker {other.sender} and looks for worker {other.receiver}, at the address of worker "
        f"{own.sender}",
    }[reason]
