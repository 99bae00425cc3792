"""All that answers in one process: the model, its batches, REST and gRPC."""

import argparse
import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import uvicorn

from kfp_image_classification.components.deploy.server.batching import Batcher
from kfp_image_classification.components.deploy.server.classifier import Classifier
from kfp_image_classification.components.deploy.server.listening import address
from kfp_image_classification.components.deploy.server.options import parallel_batches
from kfp_image_classification.components.deploy.server.payload_log import PayloadLog
from kfp_image_classification.components.deploy.server.reports import Reports
from kfp_image_classification.components.deploy.server.request_head import RequestHeadProtocol
from kfp_image_classification.components.deploy.server.rest import RestServer
from kfp_image_classification.components.deploy.server.versions import Versions
from kfp_image_classification.components.step.errors import StageFailed

if TYPE_CHECKING:
    from kfp_image_classification.components.deploy.server.grpc_server import GrpcServer

KEEP_ALIVE_SECONDS = 65  # KServe's: longer than proxies keep idle connections, so that none is closed under their hands
GRACE_SECONDS = 30
FLUSH_SECONDS = 2.0


class Service:
    """Answers requests of this process.

    Args:
        options: Of the command line.
        versions: What answers.
        workers: How many processes there are.
        siblings: Where the others tell what they counted.
        log: For unexpected errors.
    """

    def __init__(
        self, options: argparse.Namespace, versions: Versions, workers: int, siblings: list[str], log: logging.Logger
    ) -> None:
        batcher = Batcher(
            asyncio.get_running_loop(),
            options.max_batch_size,
            options.max_queue,
            options.max_image_pixels,
            parallel_batches(options, workers),
        )
        self._classifier = Classifier(options.model_name, versions, batcher)
        self.reports = Reports(self._classifier, siblings)
        self._payload_log = (
            PayloadLog(options.logger_url, options.logger_mode, options.model_name, log) if options.logger_url else None
        )
        self._rest = _UvicornServer(
            RestServer(
                self._classifier,
                self.reports,
                options.max_body_bytes,
                options.body_seconds,
                self._payload_log,
                log,
            )
        )
        self._grpc = _grpc_server(options, self._classifier, workers > 1, log) if options.enable_grpc else None

    async def start(self, listening: list[socket.socket]) -> None:
        """Begins to answer those who connect to these sockets, and by gRPC."""
        self._serving = asyncio.create_task(self._rest.serve(listening))
        if self._grpc is not None:
            await self._grpc.start()

    async def adopt(self, connection: socket.socket) -> None:
        """Answers at a connection that another process has accepted."""
        await self._rest.adopt(connection)

    def on_connections(self, told: Callable[[int, int], None]) -> None:
        """Has somebody told how many connections were adopted, and how many there are, when that has changed."""
        self._rest.told = told

    def leave(self) -> None:
        """Goes on answering, and calls itself not ready."""
        self._classifier.leaving = True

    async def stop(self) -> None:
        """Finishes what was begun, and closes everything."""
        if self._grpc is not None:
            await self._grpc.stop(GRACE_SECONDS)
        self._rest.should_exit = True
        await self._serving
        if self._payload_log is not None:
            await asyncio.to_thread(self._payload_log.flush, FLUSH_SECONDS)


class _UvicornServer(uvicorn.Server):
    """uvicorn without its own idea of signals, which would stop listening at once; takes connections, too."""

    def __init__(self, application: RestServer) -> None:
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
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self.told: Callable[[int, int], None] | None = None
        self._told = (0, 0)
        self._adopted = 0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

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


def _grpc_server(
    options: argparse.Namespace, classifier: Classifier, shared: bool, log: logging.Logger
) -> "GrpcServer":
    place = address(options.host, options.grpc_port)
    try:
        from kfp_image_classification.components.deploy.server.grpc_server import (
            GrpcServer,  # loaded only where it is wanted
        )

        return GrpcServer(classifier, place, shared, options.max_body_bytes, log)
    except ImportError as error:
        raise StageFailed(f"gRPC needs a package more ({error}); or start with --enable_grpc=false") from None
    except RuntimeError:
        raise StageFailed(f"grpc_port = {options.grpc_port}: cannot listen on {place}; choose another") from None
