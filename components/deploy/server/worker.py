"""One of several processes that answer: its supervisor hands it connections, and tells it when to do what."""

import argparse
import asyncio
import json
import logging
import signal
import socket

from kfp_image_classification.components.deploy.server.channel import Channel, Word
from kfp_image_classification.components.deploy.server.options import worker_count
from kfp_image_classification.components.deploy.server.service import Service
from kfp_image_classification.components.deploy.server.versions import Versions
from kfp_image_classification.components.step.errors import StageFailed


async def work(options: argparse.Namespace, log: logging.Logger) -> None:
    """Answers until the supervisor says so, or is gone.

    Args:
        options: Of the command line; `worker` says at which descriptors the supervisor and siblings are.
        log: For errors; what all workers do alike, the first one alone tells.
    """
    # They are for the supervisor, which says when to stop; a terminal and some init systems tell every process.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    place = json.loads(options.worker)
    channel = Channel(socket.socket(fileno=place["channel"]))
    try:
        told = log if place["first"] else _silent_log()
        versions = Versions(options.model_dir, options.backend, options.threads, told, place["version"])
        siblings = place["siblings"]
        if worker_count(options, versions.current.backend) == 1:  # the supervisor starts no others
            siblings = []
        service = Service(options, versions, len(siblings) + 1, siblings, log)
    except StageFailed as error:
        await channel.send(f"{Word.FAILED} {error}")
        return
    reports = await asyncio.start_unix_server(service.reports.answer, sock=socket.socket(fileno=place["reports"]))
    telling = set[asyncio.Task[None]]()

    def tell(adopted: int, connections: int) -> None:
        task = asyncio.create_task(channel.send(f"{Word.OPEN} {adopted} {connections}"))
        telling.add(task)
        task.add_done_callback(telling.discard)

    service.on_connections(tell)
    await service.start([])
    await channel.send(f"{Word.READY} {versions.current.backend} {versions.current.version}")
    await _obey(channel, service, versions, log)
    reports.close()
    await service.stop()


def _silent_log() -> logging.Logger:
    log = logging.Logger("silent")
    log.addHandler(logging.NullHandler())
    return log


async def _obey(channel: Channel, service: Service, versions: Versions, log: logging.Logger) -> None:
    while True:
        message = await channel.receive()
        if message.text == Word.CONNECTION:
            assert message.connection is not None
            await service.adopt(message.connection)
        elif message.text == Word.LOOK:
            try:
                await asyncio.to_thread(versions.look)
            except Exception:
                log.exception("looking for another version failed")
            await channel.send(Word.LOOKED)
        elif message.text == Word.TAKE_OVER:
            versions.take_over()
        elif message.text == Word.LEAVE:
            service.leave()
        elif message.text in (Word.STOP, ""):
            return
