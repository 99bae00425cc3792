"""Sums between workers, each of which calls `sum` with its own numbers."""

import contextlib
import logging
import math
import select
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.exchange.addresses import split_address
from kfp_image_classification.components.train.exchange.connection import Incoming, Outgoing
from kfp_image_classification.components.train.exchange.failures import (
    ExchangeFailed,
    PeerLost,
    PeersMissing,
    PeerStuck,
    WrongMessage,
)
from kfp_image_classification.components.train.exchange.gathering import Gathering
from kfp_image_classification.components.train.exchange.handshake import Place
from kfp_image_classification.components.train.exchange.messages import (
    HEADER_BYTES,
    Headers,
    Parting,
    check_in,
    seal,
)
from kfp_image_classification.components.train.exchange.numbers import (
    WIRES,
    Bytes,
    Floats,
    Wire,
    add,
    as_bytes,
    check,
    narrow,
    split,
    wire_dtype,
)
from kfp_image_classification.components.train.exchange.schedule import (
    Schedule,
    largest_message,
    schedule,
)

LEAST_TOKEN_BYTES = 16
# A worker that misses another says so before it leaves; the others wait for its word.
WORD_SECONDS = 5.0
_MOST_SIZES = 8
_LONGEST_WAIT = 1e6


@dataclass(frozen=True)
class Plan:
    """What a worker does for arrays of one size, with the memory in which it receives, prepared once.

    Attributes:
        schedule: Whom it exchanges what with.
        received: Of each round, where the numbers are received that are added, cut as the segments they are added to.
        received_bytes: The same memory as bytes.
    """

    schedule: Schedule
    received: tuple[list[NDArray[Any]], ...]
    received_bytes: tuple[list[Bytes], ...]


class Exchange:
    """One worker's end of the sums of a job.

    All workers call `sum` equally often, in the same order, with arrays of the same sizes. Nothing runs between the
    calls: no thread, no timer, no open port.
    """

    def __init__(
        self,
        connections: Mapping[int, socket.socket],
        index: int,
        workers: int,
        *,
        job: str,
        attempt: int,
        values: int,
        stuck_seconds: float,
    ) -> None:
        """Takes over connections to this worker's neighbours; `join` makes them.

        Args:
            connections: To each of `schedule.neighbours`, by its index; they are closed with the exchange.
            index: This worker's.
            workers: How many there are.
            job: Name of the job.
            attempt: Which of its attempts this is.
            values: How many numbers are summed at once, at most.
            stuck_seconds: How long a sum may wait for others.
        """
        self._connections = dict(connections)
        self._index = index
        self._workers = workers
        self._values = values
        self._stuck_seconds = stuck_seconds
        self._headers = Headers(job, attempt)
        self._header = bytearray(HEADER_BYTES)
        self._received: Floats = np.empty(largest_message(workers, values), np.float32)
        self._half: NDArray[Any] | None = None
        self._plans: dict[tuple[int, Wire], Plan] = {}
        self._step = 0
        self._deadline: float | None = None
        self._wait_seconds = stuck_seconds
        self._expected = b""
        self._outgoing: Outgoing | None = None
        self._at_work = threading.Lock()
        self._is_closed = False
        for connection in self._connections.values():
            connection.setblocking(False)

    @classmethod
    def join(
        cls,
        addresses: Sequence[str],
        index: int,
        *,
        token: bytes,
        job: str,
        attempt: int,
        values: int,
        gather_seconds: float,
        stuck_seconds: float,
        listen: str = "",
        log: logging.Logger | None = None,
    ) -> "Exchange":
        """Waits until all workers of the job are there.

        Args:
            addresses: host:port of every worker, by index; an IPv6 address as [address]:port.
            index: This worker's.
            token: The job's secret, the same for all workers; at least 16 bytes.
            job: Name of the job.
            attempt: Which of its attempts this is, from 0 on; one with a lower number has to leave.
            values: How many numbers are summed at once, at most. Memory for about half as many is taken.
            gather_seconds: How long to wait for the others.
            stuck_seconds: How long a sum may wait for others, who may be computing still.
            listen: host:port to listen at, where that is not the worker's own address: `:2223` is port 2223 of all
                interfaces. By default the own address' port, of all interfaces unless the address is a loopback one.
            log: Told who is refused, and why.

        Raises:
            InvalidInput: When an argument cannot be used.
            PeersMissing: When not all are there in time; names those that are missed.
            Refused: When this worker does not belong to the others.
            PeerLost: When a worker left while others were waited for.
            ExchangeFailed: When the port cannot be opened.
        """
        _check_arguments(addresses, index, token, attempt, values, listen)
        place = Place(
            job=job, attempt=attempt, index=index, addresses=tuple(addresses), values=values, token=bytes(token)
        )
        deadline = time.monotonic() + gather_seconds
        connections: dict[int, socket.socket] = {}
        missing: PeersMissing | None = None
        if place.workers > 1:
            gathering = Gathering(place, gather_seconds, log or logging.getLogger(__name__))
            try:
                connections = gathering.connections(listen)
            except PeersMissing as error:
                connections, missing = gathering.met, error
        exchange = cls(
            connections,
            index,
            place.workers,
            job=job,
            attempt=attempt,
            values=values,
            stuck_seconds=stuck_seconds,
        )
        if missing:
            exchange._leave(missing.peers[0], Parting.MISSING)
            raise missing
        exchange._wait_for_all(max(0.0, deadline - time.monotonic()) + WORD_SECONDS, gather_seconds)
        return exchange

    def sum(self, values: Floats, total: Floats | None = None, wire: Wire = "float32") -> None:
        """Sums an array over all workers; each gets the same bits.

        The order of the additions follows from the number of workers alone. With bfloat16 on the wire each partial sum
        is rounded to it before it travels, and added in float32.

        Args:
            values: This worker's numbers: float32, one-dimensional, contiguous.
            total: Where the sums go, of the same size; another array that does not overlap with `values`, which then
                stays as it is. None writes them over `values`.
            wire: How numbers travel.

        Raises:
            PeerLost: When a worker is gone (at once), hangs (`PeerStuck`), or sent something else (`WrongMessage`). The
                exchange is closed then, and what is in `total` is of no use.
            ExchangeFailed: When the exchange is closed.
            ValueError: When the arrays cannot be used.
        """
        total = values if total is None else total
        self._check_arrays(values, total, wire)
        if not self._at_work.acquire(blocking=False):
            raise ExchangeFailed("another thread is in the middle of a sum of this exchange")
        try:
            if self._is_closed:
                raise ExchangeFailed("this exchange is closed")
            with np.errstate(all="ignore"):  # infinite gradients are the training's to notice
                self._sum(values, total, wire)
        except PeerLost as lost:
            self._leave(lost.peer, _parting_of(lost))
            raise
        except ExchangeFailed:
            raise
        except BaseException:  # in the middle of a message, after which nobody could understand the next one
            self._leave(self._index, Parting.LOST)
            raise
        finally:
            self._at_work.release()

    def close(self) -> None:
        """Leaves the others, who can finish the sum that this worker has finished."""
        self._leave(self._index, Parting.DONE)

    def __enter__(self) -> "Exchange":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sum(self, values: Floats, total: Floats, wire: Wire) -> None:
        self._step += 1
        self._deadline = None
        plan = self._plan(values.size, wire)
        if total is not values:
            for segment in plan.schedule.untouched:
                total[segment] = values[segment]
        if self._workers > 1:
            sums = total if wire == "float32" else self._halved(values.size)
            self._add_up(plan, values, total, sums, wire)
            self._pass_on(plan, total, sums, wire)

    def _add_up(self, plan: Plan, values: Floats, total: Floats, sums: NDArray[Any], wire: Wire) -> None:
        """Adds what others send, until this worker's own block is the sum over all."""
        for turn, (one, received) in enumerate(zip(plan.schedule.rounds, plan.received, strict=True)):
            summands = total if turn else values
            if wire == "float32":
                given = as_bytes([summands[part] for part in one.given])
            else:
                narrow(summands, sums, one.given)
                given = as_bytes([sums[part] for part in one.given])
            self._swap(turn, one.ahead, given, one.behind, plan.received_bytes[turn], wire, values.size)
            for segment, part in zip(one.taken, received, strict=True):
                add(summands[segment], part, total[segment])

    def _pass_on(self, plan: Plan, total: Floats, sums: NDArray[Any], wire: Wire) -> None:
        """Sends what is finished, until everyone has everything."""
        if wire != "float32":
            narrow(total, sums, plan.schedule.own)
        rounds = plan.schedule.rounds
        for turn, one in enumerate(reversed(rounds), len(rounds)):
            given = as_bytes([sums[part] for part in one.taken])
            taken = as_bytes([sums[part] for part in one.given])
            self._swap(turn, one.behind, given, one.ahead, taken, wire, total.size)
        if wire != "float32":
            np.copyto(total, sums)

    def _swap(
        self, turn: int, to: int, given: list[Bytes], source: int, taken: list[Bytes], wire: Wire, size: int
    ) -> None:
        """Sends one message and receives another, at the same time."""
        number = WIRES.index(wire)
        header = seal(self._headers.part(self._index, number, turn, self._step, size), check(given))
        self._expected = self._headers.part(source, number, turn, self._step, size)
        out = Outgoing(to, self._connections[to], [memoryview(header), *(part.data for part in given)])
        into = Incoming(
            source,
            self._connections[source],
            [memoryview(self._header), *(part.data for part in taken)],
            self._judge,
        )
        self._outgoing = out
        while True:
            # What is sent first can be on its way while this worker looks for what has come.
            moved = not out.is_done and self._send(out)
            if not into.is_done:
                moved = into.go_on() or moved
            if out.is_done and into.is_done:
                break
            if not moved:
                self._wait(out, into)
        self._outgoing = None
        if check(taken) != check_in(self._header):
            raise WrongMessage(source, f"sent a part of sum {self._step} that was garbled on its way")

    def _send(self, out: Outgoing) -> bool:
        try:
            return out.go_on()
        except PeerLost as lost:
            raise self._last_words(out) or lost from None

    def _last_words(self, out: Outgoing) -> PeerLost | None:
        """Why a worker has left that takes nothing any more, if it has said so: the last thing that came from it."""
        heard = b""
        with contextlib.suppress(OSError):
            while piece := out.connection.recv(2**16):
                heard = (heard + piece)[-HEADER_BYTES:]
        parting = self._headers.read_parting(heard) if len(heard) == HEADER_BYTES else None
        return self._parted(out.peer, *parting) if parting else None

    def _judge(self, source: int) -> None:
        """Looks at the header of a message, whatever the rest of it may be."""
        if self._header.startswith(self._expected):
            return
        header = bytes(self._header)
        if parting := self._headers.read_parting(header):
            raise self._parted(source, *parting)
        raise WrongMessage(source, self._headers.difference(header, self._expected))

    def _parted(self, source: int, peer: int, parting: Parting) -> PeerLost:
        if parting == Parting.DONE:
            return PeerLost(source, f"is done and has left, and this worker is at sum {self._step}")
        if peer == source:
            return PeerLost(source, "has left")
        if peer == self._index or not 0 <= peer < self._workers:
            return PeerLost(source, "has left: it waited too long for this worker, or did not understand it")
        if parting == Parting.STUCK:
            return PeerStuck(peer, f"hangs, says worker {source}")
        if parting == Parting.WRONG:
            return WrongMessage(peer, f"sent something wrong, says worker {source}")
        return PeerLost(peer, f"{'did not come' if parting == Parting.MISSING else 'is gone'}, says worker {source}")

    def _wait(self, out: Outgoing, into: Incoming) -> None:
        """Waits until one of the two can go on."""
        events: dict[int, int] = {}
        if not out.is_done:
            events[out.connection.fileno()] = select.POLLOUT
        if not into.is_done:
            fd = into.connection.fileno()
            events[fd] = events.get(fd, 0) | select.POLLIN
        waiting = select.poll()
        for fd, mask in events.items():
            waiting.register(fd, mask)
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._wait_seconds
        left = min(max(0.0, self._deadline - now), _LONGEST_WAIT)
        if not waiting.poll(math.ceil(left * 1000)):
            late = out.peer if into.is_done else into.peer
            does = "takes no part" if into.is_done else "has sent no part"
            raise PeerStuck(
                late, f"{does} of sum {self._step} for {self._wait_seconds:g} s: it hangs, or waits for one that does"
            )

    def _wait_for_all(self, seconds: float, gather_seconds: float) -> None:
        """Sums nothing, which everyone can do only once everyone is there."""
        self._wait_seconds = seconds
        try:
            self.sum(np.empty(0, np.float32))
        except PeerStuck as stuck:
            raise PeersMissing(
                [stuck.peer],
                f"within {gather_seconds:g} s not all workers came: worker {stuck.peer} is there, but waits for others",
            ) from None
        self._wait_seconds = self._stuck_seconds

    def _leave(self, peer: int, parting: Parting) -> None:
        """Tells the neighbours why this worker leaves, as far as they listen, and closes everything."""
        if self._is_closed:
            return
        self._is_closed = True
        words = self._headers.parting(peer, parting, self._step)
        cut_off = self._outgoing.peer if self._outgoing and not self._outgoing.is_done else None
        if self._outgoing and not self._outgoing.has_begun:
            cut_off = None
        for neighbour, connection in self._connections.items():
            with contextlib.suppress(OSError):
                if neighbour != cut_off:  # it would take the words for numbers
                    connection.send(words)
                connection.shutdown(socket.SHUT_WR)
            connection.close()

    def _plan(self, size: int, wire: Wire) -> Plan:
        plan = self._plans.get((size, wire))
        if plan is None:
            if len(self._plans) >= _MOST_SIZES:
                self._plans.clear()
            own = schedule(self._workers, self._index, size)
            memory = self._received.view(wire_dtype(wire))
            received = tuple(split(memory, one.taken) for one in own.rounds)
            plan = Plan(own, received, tuple(as_bytes(parts) for parts in received))
            self._plans[size, wire] = plan
        return plan

    def _halved(self, size: int) -> NDArray[Any]:
        if self._half is None:
            self._half = np.empty(self._values, wire_dtype("bfloat16"))
        return self._half[:size]

    def _check_arrays(self, values: Floats, total: Floats, wire: Wire) -> None:
        for name, array in (("values", values), ("total", total)):
            if array.dtype != np.float32 or array.ndim != 1 or not array.flags.c_contiguous:
                raise ValueError(f"{name}: expected a contiguous array of float32 with one dimension")
        if total.size != values.size or not total.flags.writeable:
            raise ValueError("total: expected a writable array of the same size as values")
        if values.size > self._values:
            raise ValueError(f"values: {values.size} of them, and the workers agreed on up to {self._values}")
        if wire not in WIRES:
            raise ValueError(f"wire = {wire!r}: expected one of {', '.join(WIRES)}")


def _parting_of(lost: PeerLost) -> Parting:
    if isinstance(lost, PeerStuck):
        return Parting.STUCK
    return Parting.WRONG if isinstance(lost, WrongMessage) else Parting.LOST


def _check_arguments(
    addresses: Sequence[str], index: int, token: bytes, attempt: int, values: int, listen: str
) -> None:
    if sys.byteorder != "little":
        raise InvalidInput("this machine writes numbers the other way round (big-endian); use exchange = ring")
    if not 0 <= index < len(addresses):
        raise InvalidInput(
            f"index = {index}: expected 0 to {len(addresses) - 1}, as there are {len(addresses)} workers"
        )
    if len(set(addresses)) != len(addresses):
        raise InvalidInput(f"addresses = {', '.join(addresses)}: two workers have the same one")
    if len(token) < LEAST_TOKEN_BYTES:
        raise InvalidInput(f"token: {len(token)} bytes are too few to be a secret; expected {LEAST_TOKEN_BYTES}")
    if not 0 <= attempt < 2**63:
        raise InvalidInput(f"attempt = {attempt}: expected 0 or more")
    if not 0 <= values < 2**40:
        raise InvalidInput(f"values = {values}: expected 0 or more")
    if len(addresses) > 1:
        for address in (*addresses, *([listen] if listen else [])):
            split_address(address)
