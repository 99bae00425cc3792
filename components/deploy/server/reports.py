"""What all processes of a server have counted, told by any of them: each asks its siblings, and adds up.

A sibling is asked at a Unix socket of its own, by one line, and answers in JSON or in Prometheus' format.
"""

import asyncio
import logging
import socket

import orjson
from prometheus_client import generate_latest

from kfp_image_classification.components.deploy.server.classifier import Classifier
from kfp_image_classification.components.deploy.server.server_metrics import added_up
from kfp_image_classification.components.deploy.server.statistics import Told, summed

SECONDS = 2.0


class Reports:
    """Reports of this process and its siblings.

    Args:
        classifier: Of this process.
        siblings: Names of the others' sockets, in Linux's abstract namespace.
    """

    def __init__(self, classifier: Classifier, siblings: list[str]) -> None:
        self._classifier = classifier
        self._siblings = siblings

    async def metrics(self) -> bytes:
        """In Prometheus' format."""
        own = generate_latest()
        return added_up([own, *others]) if (others := await self._asked("metrics")) else own

    async def statistics(self, version: str) -> dict[str, object]:
        """Triton's, of a version."""
        others = [orjson.loads(answer) for answer in await self._asked(f"statistics {version}")]
        told = summed([self._classifier.statistics(version), *others])
        return {"model_stats": [{"name": self._classifier.name, "version": version, **told}]}

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers a sibling."""
        question, _, version = (await reader.readline()).decode().strip().partition(" ")
        told: Told = self._classifier.statistics(version)
        writer.write(generate_latest() if question == "metrics" else orjson.dumps(told))
        writer.close()

    async def _asked(self, question: str) -> list[bytes]:
        answers = await asyncio.gather(*(_ask(sibling, question) for sibling in self._siblings))
        return [answer for answer in answers if answer]


async def _ask(sibling: str, question: str) -> bytes:
    try:
        async with asyncio.timeout(SECONDS):
            # In Python, as uvloop knows no abstract addresses; the kernel connects them at once.
            connection = socket.socket(socket.AF_UNIX)
            connection.setblocking(False)
            connection.connect(f"\0{sibling}")
            reader, writer = await asyncio.open_unix_connection(sock=connection)
            writer.write(f"{question}\n".encode())
            answer = await reader.read()
            writer.close()
            return answer
    except (OSError, TimeoutError) as error:  # it starts, or ends
        logging.getLogger("server").info("a worker does not tell its %s: %r", question, error)
        return b""
