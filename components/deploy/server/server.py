"""The model server, run as

    python -m kfp_image_classification.components.deploy.server --model_name NAME --model_dir DIR --http_port PORT

KServe's V1 and V2 protocols over REST and gRPC for a model from train. The options are named as KServe names them, so
the same program serves as a custom ServingRuntime.
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from kfp_image_classification.components.deploy.server.batching import Batcher
from kfp_image_classification.components.deploy.server.classifier import Classifier
from kfp_image_classification.components.deploy.server.payload_log import PayloadLog
from kfp_image_classification.components.deploy.server.rest import RestServer
from kfp_image_classification.components.deploy.server.versions import Versions
from kfp_image_classification.components.step.cpu_limit import usable_cores
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.step.process_start import start_process

if TYPE_CHECKING:
    from kfp_image_classification.components.deploy.server.grpc_server import GrpcServer

KEEP_ALIVE_SECONDS = 65  # KServe's: longer than proxies keep idle connections, so that none is closed under their hands
GRACE_SECONDS = 30
FLUSH_SECONDS = 2.0


def main() -> None:
    """Loads the model, then answers until it is told to stop."""
    arguments = _arguments()
    gc.set_threshold(100_000)  # pixels as nested lists are many objects, and none of them is garbage
    start_process()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(arguments, logging.getLogger("server")))
    except StageFailed as error:
        sys.exit(f"error: {error}")


async def _serve(arguments: argparse.Namespace, log: logging.Logger) -> None:
    listening = _listen(arguments.host, arguments.http_port)
    versions = Versions(arguments.model_dir, arguments.backend, arguments.threads, log)
    batcher = Batcher(
        asyncio.get_running_loop(),
        arguments.max_batch_size,
        arguments.max_queue,
        arguments.max_image_pixels,
        arguments.parallel_batches or usable_cores(),
    )
    classifier = Classifier(arguments.model_name, versions, batcher)
    payload_log = (
        PayloadLog(arguments.logger_url, arguments.logger_mode, arguments.model_name, log)
        if arguments.logger_url
        else None
    )
    rest = _UvicornServer(RestServer(classifier, arguments.max_body_bytes, arguments.body_seconds, payload_log, log))
    background = [asyncio.create_task(rest.serve([listening]))]
    if arguments.reload_seconds:
        background.append(asyncio.create_task(versions.follow(arguments.reload_seconds)))
    grpc_server = None
    if arguments.enable_grpc:
        grpc_server = await _start_grpc(arguments, classifier, log)
    log.info("listening on %s", _address(arguments.host, arguments.http_port))

    await _told_to_stop()
    # A cluster stops sending requests only some time after it has told the process to end.
    log.info("told to stop: not ready any more, answering for %g s yet", arguments.drain_seconds)
    classifier.leaving = True
    await asyncio.sleep(arguments.drain_seconds)
    if grpc_server is not None:
        await grpc_server.stop(GRACE_SECONDS)
    rest.should_exit = True
    await background[0]
    if payload_log is not None:
        await asyncio.to_thread(payload_log.flush, FLUSH_SECONDS)


class _UvicornServer(uvicorn.Server):
    """uvicorn without its own idea of signals, which would stop listening at once."""

    def __init__(self, application: RestServer) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                lifespan="off",
                ws="none",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _start_grpc(arguments: argparse.Namespace, classifier: Classifier, log: logging.Logger) -> "GrpcServer":
    try:
        from kfp_image_classification.components.deploy.server.grpc_server import (
            GrpcServer,  # loaded only where it is wanted
        )

        server = GrpcServer(classifier, _address(arguments.host, arguments.grpc_port), arguments.max_body_bytes, log)
    except ImportError as error:
        raise StageFailed(f"gRPC needs a package more ({error}); or start with --enable_grpc=false") from None
    except RuntimeError:
        address = _address(arguments.host, arguments.grpc_port)
        raise StageFailed(f"grpc_port = {arguments.grpc_port}: cannot listen on {address}; choose another") from None
    await server.start()
    return server


async def _told_to_stop() -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await told.wait()


def _listen(host: str, port: int) -> socket.socket:
    try:
        listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in host:  # as gRPC does: all addresses of IPv6 are those of IPv4 as well, whatever the system's default
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StageFailed(f"http_port = {port}: cannot listen on {_address(host, port)} ({reason})") from None
    return listening


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host(text: str) -> str:
    """An address of IPv6 may come in the brackets that it has in URLs."""
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m kfp_image_classification.components.deploy.server",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    def option(name: str, default: object, description: str, **more: Any) -> None:
        parser.add_argument(name, default=default, help=description, **{"type": type(default), **more})

    parser.add_argument("--model_name", required=True, help="the model's name in URLs")
    parser.add_argument("--model_dir", required=True, type=Path, help="folder with numbered version folders")
    option("--host", "0.0.0.0", "address to listen on; :: for all of IPv6 and IPv4", type=_host)
    option("--http_port", 8080, "port for REST")
    option("--grpc_port", 8081, "port for gRPC")
    option("--enable_grpc", True, "listen for gRPC", type=_yes_or_no)
    option(
        "--backend",
        "auto",
        "what runs the model; auto is ONNX where it answers right",
        choices=["auto", "onnx", "tensorflow"],
    )
    option("--threads", 1, "that compute one batch", type=_at_least_one)
    option("--parallel_batches", 0, "computed at the same time; 0 for as many as there are cores")
    option("--max_batch_size", 64, "images computed at once", type=_at_least_one)
    option("--max_queue", 1024, "images waiting; beyond it requests get 503", type=_at_least_one)
    option("--max_body_bytes", 16 << 20, "largest request; beyond it 413", type=_at_least_one)
    option("--body_seconds", 30.0, "how long a request's body may take to arrive; beyond it 408")
    option(
        "--max_image_pixels",
        50_000_000,
        "largest height x width, of a request's image files together",
        type=_at_least_one,
    )
    option("--reload_seconds", 2.0, "how often to look for another version; 0 for never")
    option("--drain_seconds", 5.0, "how long to answer after SIGTERM, while not ready any more")
    option("--logger_url", "", "send requests and answers there as CloudEvents")
    option("--logger_mode", "all", "what to send", choices=["all", "request", "response"])
    return parser.parse_args()


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text}")
    return number


def _yes_or_no(text: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return values[text.lower()]
