"""Brings the workers of a job together: each is connected to those with which it will exchange messages."""

import contextlib
import errno
import logging
import os
import select
import socket
import time
from collections.abc import Iterable

from kfp_image_classification.components.train.exchange.addresses import open_door, own_door, ready_for_sums, resolve
from kfp_image_classification.components.train.exchange.failures import PeersMissing
from kfp_image_classification.components.train.exchange.handshake import Handshake, Met, NotMet, Place, answer, call
from kfp_image_classification.components.train.exchange.messages import GREETING_BYTES, GREETING_MAGIC
from kfp_image_classification.components.train.exchange.schedule import neighbours

HANDSHAKE_SECONDS = 10.0
# Of those who connected and have not shown who they are, the oldest has to go when there are more.
MOST_GUESTS = 64
RETRY_SECONDS = (0.05, 1.0)
MOST_COMPLAINTS = 10


class Conversation:
    """A handshake over a connection, a few bytes at a time."""

    def __init__(self, connection: socket.socket, handshake: Handshake, whom: str, is_made: bool) -> None:
        self.connection = connection
        self.whom = whom
        self.deadline = time.monotonic() + HANDSHAKE_SECONDS
        self.is_made = is_made
        self._handshake = handshake
        self._heard = b""
        self._to_say = next(handshake)

    @property
    def events(self) -> int:
        return select.POLLIN if self.is_made else select.POLLOUT

    def go_on(self) -> Met | None:
        """Says and hears what can be without waiting.

        Returns:
            The other worker once it is known; None before.

        Raises:
            NotMet: When it is not the one that was expected.
            OSError: When the connection is lost.
        """
        if not self.is_made:
            if problem := self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(problem, os.strerror(problem))
            if self.connection.getsockname() == self.connection.getpeername():
                raise OSError(errno.ECONNREFUSED, "nobody listens there")  # the kernel connected us to ourselves
            self.is_made = True
        self._say(self._to_say)
        self._to_say = b""
        with contextlib.suppress(BlockingIOError):
            if not (piece := self.connection.recv(GREETING_BYTES - len(self._heard))):
                raise OSError(errno.ECONNRESET, "it closed the connection without an answer")
            self._heard += piece
        if not GREETING_MAGIC.startswith(self._heard[: len(GREETING_MAGIC)]):
            raise NotMet("it does not speak as a worker does")
        if len(self._heard) < GREETING_BYTES:
            return None
        heard, self._heard = self._heard, b""
        try:
            self._say(self._handshake.send(heard))
        except StopIteration as end:
            met: Met = end.value
            self._say(met.last)
            return met
        except NotMet as error:
            with contextlib.suppress(OSError):
                self._say(error.answer)
            raise
        return None

    def _say(self, message: bytes) -> None:
        # A hundred bytes always fit into the buffer of a connection that has hardly been used.
        if message and self.connection.send(message) < len(message):
            raise OSError(errno.ENOBUFS, "it takes no messages")


class Gathering:
    """Connects one worker to its neighbours: those with a lower index are called, those with a higher one call.

    Attributes:
        met: The connections that stand.
    """

    def __init__(self, place: Place, seconds: float, log: logging.Logger) -> None:
        self._place = place
        self._seconds = seconds
        self._log = log
        self._deadline = time.monotonic() + seconds
        self.met: dict[int, socket.socket] = {}
        self._guests: list[Conversation] = []
        self._calls: dict[int, Conversation] = {}
        self._due = dict.fromkeys((peer for peer in neighbours(place.workers, place.index) if peer < place.index), 0.0)
        self._tries = dict.fromkeys(self._due, 0)
        self._troubles: dict[int, str] = {}
        self._complaints = 0

    def connections(self, listen: str = "") -> dict[int, socket.socket]:
        """Waits for all neighbours.

        Args:
            listen: host:port to listen at instead of this worker's own address.

        Returns:
            A connection to each, by index; the caller closes them.

        Raises:
            PeersMissing: Names those that did not come in time; the others' connections are in `met`.
            Refused: When this worker does not belong to the others.
            ExchangeFailed: When the port cannot be opened.
        """
        wanted = set(neighbours(self._place.workers, self._place.index))
        address = listen or own_door(self._place.addresses[self._place.index])
        try:
            with open_door(address, MOST_GUESTS) as door:
                while wanted - self.met.keys():
                    if time.monotonic() > self._deadline:
                        raise self._missing(sorted(wanted - self.met.keys()))
                    self._call_those_due()
                    self._serve(door)
        except PeersMissing:
            raise  # those who came are still to be told
        except BaseException:
            _close(self.met.values())
            raise
        finally:
            _close(talk.connection for talk in (*self._guests, *self._calls.values()))
        return self.met

    def _call_those_due(self) -> None:
        now = time.monotonic()
        for peer in [peer for peer, due in self._due.items() if due <= now]:
            del self._due[peer]
            try:
                found = resolve(self._place.addresses[peer])
                family, sockaddr = found[self._tries[peer] % len(found)]
                connection = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                self._call_again(peer, f"its name cannot be resolved: {error.strerror}")
                continue
            self._calls[peer] = Conversation(
                connection, call(self._place, peer), f"worker {peer} at {self._place.addresses[peer]}", is_made=False
            )
            ready_for_sums(connection)
            problem = connection.connect_ex(sockaddr)
            if problem not in (0, errno.EINPROGRESS):
                self._call_again(peer, os.strerror(problem))

    def _call_again(self, peer: int, why: str) -> None:
        if failed := self._calls.pop(peer, None):
            failed.connection.close()
        self._troubles[peer] = why
        first, longest = RETRY_SECONDS
        self._due[peer] = time.monotonic() + min(longest, first * 2 ** min(self._tries[peer], 10))
        self._tries[peer] += 1

    def _serve(self, door: socket.socket) -> None:
        """Waits until something happens, and goes on with all with whom it did."""
        waiting = select.poll()
        waiting.register(door, select.POLLIN)
        for talk in (*self._guests, *self._calls.values()):
            waiting.register(talk.connection, talk.events)
        for connection in self.met.values():
            waiting.register(connection, select.POLLRDHUP)
        now = time.monotonic()
        times = [self._deadline, *self._due.values()]
        times += [talk.deadline for talk in (*self._guests, *self._calls.values())]
        ready = {fd for fd, _ in waiting.poll(1000 * max(0.0, min(times) - now) + 1)}

        for peer in [peer for peer, connection in self.met.items() if connection.fileno() in ready]:
            self._lose(peer)
        for peer, talk in list(self._calls.items()):
            self._hear_called(peer, talk, talk.connection.fileno() in ready)
        for talk in list(self._guests):
            self._hear_guest(talk, talk.connection.fileno() in ready)
        if door.fileno() in ready:
            self._let_in(door)

    def _let_in(self, door: socket.socket) -> None:
        with contextlib.suppress(OSError):  # one that is gone again
            connection, address = door.accept()
            connection.setblocking(False)
            self._guests.append(Conversation(connection, answer(self._place), str(address[0]), is_made=True))
        if len(self._guests) > MOST_GUESTS:
            self._guests.pop(0).connection.close()

    def _hear_called(self, peer: int, talk: Conversation, is_ready: bool) -> None:
        try:
            if is_ready and talk.go_on():
                del self._calls[peer]
                self._keep(peer, talk.connection)
            elif time.monotonic() > talk.deadline:
                self._call_again(peer, f"no answer for {HANDSHAKE_SECONDS:g} s")
        except NotMet as error:
            self._complain(f"{talk.whom}: {error}")
            if error.refused:
                raise error.refused from None
            self._call_again(peer, str(error))
        except OSError as error:
            self._call_again(peer, error.strerror or str(error))

    def _hear_guest(self, talk: Conversation, is_ready: bool) -> None:
        try:
            met = talk.go_on() if is_ready else None
        except NotMet as error:
            self._guests.remove(talk)
            talk.connection.close()
            self._complain(f"refused a connection from {talk.whom}: {error}")
            if error.refused:
                raise error.refused from None
        except OSError:
            self._guests.remove(talk)
            talk.connection.close()
        else:
            if met:
                self._guests.remove(talk)
                self._keep(met.peer, talk.connection)
            elif time.monotonic() > talk.deadline:
                self._guests.remove(talk)
                talk.connection.close()

    def _keep(self, peer: int, connection: socket.socket) -> None:
        if former := self.met.pop(peer, None):  # a worker that was started again
            former.close()
        self.met[peer] = connection
        self._troubles.pop(peer, None)

    def _lose(self, peer: int) -> None:
        self.met.pop(peer).close()
        if peer < self._place.index:
            self._call_again(peer, "it came, and left")
        else:
            self._troubles[peer] = "it came, and left"

    def _complain(self, what: str) -> None:
        self._complaints += 1
        if self._complaints <= MOST_COMPLAINTS:
            self._log.warning("%s", what)

    def _missing(self, peers: list[int]) -> PeersMissing:
        names = ", ".join(
            f"worker {peer} at {self._place.addresses[peer]} ({self._troubles.get(peer, 'it has not called')})"
            for peer in peers
        )
        return PeersMissing(
            peers,
            f"no answer within {self._seconds:g} s from {names}: is it running, does its name resolve, and may it "
            "connect to the other workers' port?",
        )


def _close(connections: Iterable[socket.socket]) -> None:
    for connection in connections:
        connection.close()
