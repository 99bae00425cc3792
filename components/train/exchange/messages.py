"""The bytes between workers: fixed sizes, numbers in network byte order. docs/exchange.md explains each field."""

import hashlib
import hmac
import struct
from dataclasses import dataclass, replace
from enum import IntEnum

VERSION = 1

GREETING_MAGIC = b"KFPX"
_GREETING = struct.Struct("!4sHBBIIIQQ16s16s")
_MAC_BYTES = 32
GREETING_BYTES = _GREETING.size + _MAC_BYTES
NONCE_BYTES = 16

_PART_MAGIC = b"KFPD"
_HEADER = struct.Struct("!4sBBHI8sQQQ")
_CHECK = struct.Struct("!Q")
HEADER_BYTES = _HEADER.size + _CHECK.size


class Kind(IntEnum):
    """What a greeting is."""

    HELLO = 1
    WELCOME = 2
    REFUSAL = 3
    READY = 4


class Reason(IntEnum):
    """Why a worker is refused."""

    NONE = 0
    VERSION = 1
    JOB = 2
    TOKEN = 3
    ATTEMPT = 4
    SETTINGS = 5
    INDEX = 6


class Parting(IntEnum):
    """Why a worker leaves."""

    DONE = 0
    LOST = 1
    STUCK = 2
    WRONG = 3
    MISSING = 4


@dataclass(frozen=True)
class Greeting:
    """One message of a handshake.

    Attributes:
        kind: Which of the handshake's messages.
        reason: Why the other is refused.
        version: Of the protocol.
        workers: How many the sender counts.
        sender: Index of the sending worker.
        receiver: Index of the worker that it means.
        attempt: Which of the job's attempts the sender belongs to.
        values: How many values the sender sums at once, at most.
        job: Digest of the job's name.
        nonce: Random bytes, so that no recorded handshake can be played again.
    """

    kind: Kind
    workers: int
    sender: int
    receiver: int
    attempt: int
    values: int
    job: bytes
    nonce: bytes
    reason: Reason = Reason.NONE
    version: int = VERSION

    def to(self, kind: Kind, reason: Reason = Reason.NONE) -> "Greeting":
        return replace(self, kind=kind, reason=reason)

    def sealed(self, token: bytes, heard: bytes) -> bytes:
        """The message, with a proof that the sender knows the token and heard all that was said before."""
        body = _GREETING.pack(
            GREETING_MAGIC,
            self.version,
            self.kind,
            self.reason,
            self.workers,
            self.sender,
            self.receiver,
            self.attempt,
            self.values,
            self.job,
            self.nonce,
        )
        return body + _mac(token, heard, body)


def read_greeting(message: bytes) -> Greeting | None:
    """Takes a greeting apart; None for anything that is none."""
    magic, version, kind, reason, workers, sender, receiver, attempt, values, job, nonce = _GREETING.unpack_from(
        message
    )
    if magic != GREETING_MAGIC:
        return None
    try:
        return Greeting(
            Kind(kind), workers, sender, receiver, attempt, values, job, nonce, reason=Reason(reason), version=version
        )
    except ValueError:  # a kind or reason that this version does not know
        return None


def is_sealed(message: bytes, token: bytes, heard: bytes) -> bool:
    """Whether the sender of a greeting knows the token; takes the same time for every wrong proof."""
    return hmac.compare_digest(message[_GREETING.size :], _mac(token, heard, message[: _GREETING.size]))


def job_digest(job: str) -> bytes:
    """Stands for a job's name in a greeting."""
    return hashlib.sha256(job.encode()).digest()[:16]


def _mac(token: bytes, heard: bytes, body: bytes) -> bytes:
    return hmac.new(token, heard + body, hashlib.sha256).digest()


class Headers:
    """The headers of one worker's messages in a job."""

    def __init__(self, job: str, attempt: int) -> None:
        self._job = job_digest(job)[:8]
        self._attempt = attempt

    def part(self, sender: int, wire: int, turn: int, step: int, values: int) -> bytes:
        """Announces a part of a sum; the check follows it."""
        return _HEADER.pack(_PART_MAGIC, 1, wire, turn, sender, self._job, self._attempt, step, values)

    def parting(self, peer: int, parting: Parting, step: int) -> bytes:
        """Says that the sender leaves, and on whose account."""
        return _HEADER.pack(_PART_MAGIC, 2, parting, 0, peer, self._job, self._attempt, step, 0) + _CHECK.pack(0)

    def read_parting(self, header: bytes) -> tuple[int, Parting] | None:
        """Whose account, and why; None for another message."""
        magic, kind, parting, _, peer, job, attempt, _, _ = _HEADER.unpack_from(header)
        if (magic, kind, job, attempt) != (_PART_MAGIC, 2, self._job, self._attempt) or parting > max(Parting):
            return None
        return peer, Parting(parting)

    def difference(self, header: bytes, expected: bytes) -> str:
        """Says in what a part's header is not the one that is due."""
        got, due = _HEADER.unpack_from(header), _HEADER.unpack_from(expected)
        if got[:2] != due[:2]:
            return "sent something that is no part of a sum"
        if got[5] != due[5]:
            return "sent a part of another job's sum"
        if got[6] != due[6]:
            return f"sent a part of attempt {got[6]}, and this is attempt {due[6]}"
        if got[7] != due[7]:
            return f"sent a part of sum {got[7]}, and sum {due[7]} is due"
        if got[8] != due[8]:
            return f"sums {got[8]} values, and this worker {due[8]}"
        if got[2] != due[2]:
            return "sends its numbers as another type than this worker"
        return f"sent message {got[3]} of worker {got[4]}, and message {due[3]} of worker {due[4]} is due"


def seal(header: bytes, check: int) -> bytes:
    """A part's header with the check of what follows."""
    return header + _CHECK.pack(check)


def check_in(header: bytes | bytearray) -> int:
    """The check that a part's header announces."""
    found: int = _CHECK.unpack_from(header, _HEADER.size)[0]
    return found
