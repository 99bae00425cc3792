"""The model server, run as

    python -m kfp_image_classification.components.deploy.server --model_name NAME --model_dir DIR --http_port PORT

KServe's V1 and V2 protocols over REST and gRPC for a model from train. The options are named as KServe names them, so
the same program serves as a custom ServingRuntime.
"""

import argparse
import asyncio
import gc
import logging
import socket
import sys
import warnings
from collections.abc import Callable

from kfp_image_classification.components.deploy.server.listening import address, bound
from kfp_image_classification.components.deploy.server.options import read_options, worker_count
from kfp_image_classification.components.deploy.server.signals import told_to_stop
from kfp_image_classification.components.deploy.server.supervisor import Supervisor
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.step.process_start import start_process


def main() -> None:
    """Loads the model, then answers until it is told to stop."""
    options = read_options(__doc__)
    gc.set_threshold(100_000)  # pixels as nested lists are many objects, and none of them is garbage
    start_process(outlives_parent=True)  # the step that deploys ends when it serves
    warnings.filterwarnings("ignore", module="PIL")  # it tells of broken EXIF, which nobody here reads
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_run(options, logging.getLogger("server")))
    except StageFailed as error:
        sys.exit(f"error: {error}")


async def _run(options: argparse.Namespace, log: logging.Logger) -> None:
    if options.worker:
        from kfp_image_classification.components.deploy.server.worker import work  # not for a supervisor

        await work(options, log)
        return
    listening = bound(options.host, options.http_port, "http_port")
    if options.enable_grpc:  # gRPC takes it for itself, and does not tell why it cannot
        bound(options.host, options.grpc_port, "grpc_port").close()
    if worker_count(options) > 1:
        await Supervisor(options, listening, log).run()
    else:
        await _alone(options, listening, log)


async def _alone(options: argparse.Namespace, listening: socket.socket, log: logging.Logger) -> None:
    from kfp_image_classification.components.deploy.server.service import Service
    from kfp_image_classification.components.deploy.server.versions import Versions

    versions = Versions(options.model_dir, options.backend, options.threads, log)
    service = Service(options, versions, workers=1, siblings=[], log=log)
    await service.start([listening])
    following = asyncio.create_task(versions.follow(options.reload_seconds)) if options.reload_seconds else None
    log.info("listening on %s", address(options.host, options.http_port))

    await told_to_stop()
    # A cluster stops sending requests only some time after it has told the process to end.
    log.info("told to stop: not ready any more, answering for %g s yet", options.drain_seconds)
    service.leave()
    await asyncio.sleep(options.drain_seconds)
    if following is not None:
        following.cancel()
    await service.stop()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
