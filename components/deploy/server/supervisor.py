"""Several processes that answer together: one listens, and hands each connection to the worker that has the fewest.

Python computes on one core, so a server on several has a process for each. The supervisor loads no model. Connections
by gRPC are spread by the kernel, as the workers listen at the same port. All take another version at the same moment:
each loads it when told to look, and when all have looked, they are told to take over.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from kfp_image_classification.components.deploy.server.channel import Channel, Word, pair
from kfp_image_classification.components.deploy.server.listening import address, leaves_address_free
from kfp_image_classification.components.deploy.server.options import worker_count
from kfp_image_classification.components.deploy.server.signals import told_to_stop
from kfp_image_classification.components.step.errors import StageFailed

BACKLOG = 2048
END_SECONDS = 40.0  # more than a worker's own patience
PAUSE_SECONDS = 0.1


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    channel: Channel
    handed: int = 0
    closed: int = 0

    @property
    def connections(self) -> int:
        return self.handed - self.closed


class Supervisor:
    """Starts workers, and leads them to their end.

    Args:
        options: Of the command line.
        listening: Bound to the address; listens once the first worker is ready.
        log: Told what happens.
    """

    def __init__(self, options: argparse.Namespace, listening: socket.socket, log: logging.Logger) -> None:
        self._options = options
        self._listening = listening
        self._log = log
        self._answering: list[_Worker] = []
        self._started: list[_Worker] = []
        self._looked = asyncio.Semaphore(0)
        self._broken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._stopping = False
        self._background: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Answers until it is told to stop.

        Raises:
            StageFailed: When a worker cannot start, or ends by itself.
        """
        options, listening = self._options, self._listening
        stopped: asyncio.Future[Any] = asyncio.ensure_future(told_to_stop())
        try:
            places = _places(worker_count(options))
            backend, version = await self._start(places[0])
            others = places[1 : worker_count(options, backend)]
            del places
            leaves_address_free(listening)
            listening.listen(BACKLOG)
            listening.setblocking(False)
            self._in_background(self._accept(listening))
            self._log.info("listening on %s", address(options.host, options.http_port))
            self._in_background(self._start_others(others, int(version)))
            await asyncio.wait([stopped, self._broken], return_when=asyncio.FIRST_COMPLETED)
            if self._broken.done():
                raise StageFailed(self._broken.result())
            self._log.info("told to stop: not ready any more, answering for %g s yet", options.drain_seconds)
            await self._tell(Word.LEAVE)
            await asyncio.sleep(options.drain_seconds)
        finally:
            self._stopping = True
            for task in (stopped, *self._background):
                task.cancel()
            listening.close()
            await self._end()

    async def _start_others(self, places: "list[_Place]", version: int) -> None:
        try:
            await asyncio.gather(*(self._start(place, version) for place in places))
        except StageFailed as error:
            self._break(str(error))
            return
        self._log.info("%d workers answer", len(self._answering))
        if self._options.reload_seconds:
            await self._follow(self._options.reload_seconds)

    def _break(self, reason: str) -> None:
        if not self._stopping and not self._broken.done():
            self._broken.set_result(reason)

    def _in_background(self, doing: Coroutine[Any, Any, None]) -> None:
        self._background.append(asyncio.create_task(doing))

    async def _start(self, place: "_Place", version: int | None = None) -> list[str]:
        """Starts a worker, with that version or a lower one; once it is ready, what runs its model, and the version."""
        ours, theirs = pair()
        told = {
            "channel": theirs.fileno(),
            "reports": place.reports.fileno(),
            "siblings": place.siblings,
            "first": place.is_first,
            "version": version,
        }
        command = [sys.executable, "-m", "kfp_image_classification.components.deploy.server", *sys.argv[1:]]
        with theirs, place.reports:
            process = subprocess.Popen(
                [*command, f"--worker={json.dumps(told)}"],
                pass_fds=(theirs.fileno(), place.reports.fileno()),
                start_new_session=True,  # a terminal's Ctrl-C is for the supervisor alone
            )
        worker = _Worker(process, Channel(ours))
        self._started.append(worker)
        kind, _, rest = (await worker.channel.receive()).text.partition(" ")
        if kind == Word.FAILED:
            raise StageFailed(rest)
        if kind != Word.READY:
            raise StageFailed(f"a worker ended before it was ready, {_how(await _ended(process))}")
        self._answering.append(worker)
        self._in_background(self._listen_to(worker))
        return rest.split()

    async def _listen_to(self, worker: _Worker) -> None:
        while message := (await worker.channel.receive()).text:
            kind, _, rest = message.partition(" ")
            if kind == Word.OPEN:
                adopted, connections = map(int, rest.split())
                worker.closed = adopted - connections
            elif kind == Word.LOOKED:
                self._looked.release()
        self._answering.remove(worker)
        how = _how(await _ended(worker.process))
        self._break(f"a worker ended by itself, {how}; the others end, too, so that all start anew")

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:  # too many open files, say
                self._log.error("cannot accept connections: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            with connection:
                if self._answering:
                    worker = min(self._answering, key=lambda worker: worker.connections)
                    worker.handed += 1
                    await worker.channel.send(Word.CONNECTION, connection)

    async def _follow(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            for _ in await self._tell(Word.LOOK):
                await self._looked.acquire()
            await self._tell(Word.TAKE_OVER)

    async def _tell(self, text: str) -> list[_Worker]:
        told = list(self._answering)
        for worker in told:
            await worker.channel.send(text)
        return told

    async def _end(self) -> None:
        for worker in self._started:
            await worker.channel.send(Word.STOP)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await asyncio.gather(*(_ended(worker.process) for worker in self._started))
        for worker in self._started:
            worker.process.kill()
            worker.process.wait()


@dataclass(frozen=True)
class _Place:
    reports: socket.socket
    siblings: list[str]
    is_first: bool


def _places(count: int) -> list[_Place]:
    """Where each worker tells what it has counted, and where its siblings do; the first one's first sibling first."""
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(count)]
    for one in sockets:
        one.bind("")  # Linux finds a name
        one.listen()
    names = [one.getsockname()[1:].decode() for one in sockets]
    return [_Place(one, names[:index] + names[index + 1 :], index == 0) for index, one in enumerate(sockets)]


async def _ended(process: subprocess.Popen[bytes]) -> int:
    return await asyncio.to_thread(process.wait)


def _how(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"with code {code}"
