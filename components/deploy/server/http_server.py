"""uvicorn, as the model server and the collector run it."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from kfp_image_classification.components.deploy.server.listening import leaves_address_free
from kfp_image_classification.components.deploy.server.request_head import RequestHeadProtocol

KEEP_ALIVE_SECONDS = 65  # KServe's: longer than proxies keep idle connections, so that none is closed under their hands


class HttpServer(uvicorn.Server):
    """uvicorn without its own idea of signals, which would stop listening at once; takes connections, too.

    Args:
        application: By ASGI.
        grace_seconds: How long requests may take that are being answered when it is told to stop.
    """

    def __init__(self, application: Any, grace_seconds: int) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http=RequestHeadProtocol,
                proxy_headers=False,
                lifespan="off",
                ws="none",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=grace_seconds,
            )
        )
        self.told: Callable[[int, int], None] | None = None
        self._told = (0, 0)
        self._adopted = 0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        for one in sockets or ():
            leaves_address_free(one)
        await super().startup(sockets)

    async def adopt(self, connection: socket.socket) -> None:
        """Does what uvicorn does with a connection that it has accepted itself."""
        while not self.started:
            await asyncio.sleep(0.01)
        protocol = self.config.http_protocol_class
        with contextlib.suppress(OSError):  # its client has gone
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol(  # type: ignore[call-arg]
                    config=self.config, server_state=self.server_state, app_state=self.lifespan.state
                ),
                connection,
            )
        self._adopted += 1

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's, ten times a second."""
        counts = self._adopted, len(self.server_state.connections)
        if self.told is not None and counts != self._told:
            self._told = counts
            self.told(*counts)
        return await super().on_tick(counter)
