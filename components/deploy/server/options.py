"""The model server's options, named as KServe names them where it has them."""

import argparse
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from kfp_image_classification.components.contracts.model_card import ONNX_MODEL
from kfp_image_classification.components.deploy.server.listening import bare_host
from kfp_image_classification.components.step.cpu_limit import usable_cores
from kfp_image_classification.components.step.memory_limit import usable_memory

WORKER_BYTES = 128 << 20


def read_options(description: str | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m kfp_image_classification.components.deploy.server",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    def option(name: str, default: object, description: str, **more: Any) -> None:
        parser.add_argument(name, default=default, help=description, **{"type": type(default), **more})

    parser.add_argument("--model_name", required=True, type=_name, help="the model's name in URLs")
    parser.add_argument("--model_dir", required=True, type=Path, help="folder with numbered version folders")
    option("--host", "0.0.0.0", "address to listen on; :: for all of IPv6 and IPv4", type=bare_host)
    option("--http_port", 8080, "port for REST")
    option("--grpc_port", 8081, "port for gRPC")
    option("--enable_grpc", True, "listen for gRPC", type=_yes_or_no)
    option(
        "--workers",
        0,
        "processes that answer; 0 for as many as there are cores, and memory for them",
        type=_none_or_more,
    )
    option(
        "--backend",
        "auto",
        "what runs the model; auto is ONNX where it answers right",
        choices=["auto", "onnx", "tensorflow"],
    )
    option("--threads", 1, "that compute one batch", type=_at_least_one)
    option(
        "--parallel_batches",
        0,
        "computed at the same time, in each worker; 0 for as many as it has cores",
        type=_none_or_more,
    )
    option("--max_batch_size", 64, "images computed at once", type=_at_least_one)
    option("--max_queue", 1024, "images waiting in a worker; beyond it requests get 503", type=_at_least_one)
    option("--max_body_bytes", 16 << 20, "largest request; beyond it 413", type=_at_least_one)
    option("--body_seconds", 30.0, "how long a request's body may take to arrive; beyond it 408", type=_some_seconds)
    option(
        "--max_image_pixels",
        50_000_000,
        "largest height x width, of a request's image files together",
        type=_at_least_one,
    )
    option("--reload_seconds", 2.0, "how often to look for another version; 0 for never", type=_seconds)
    option("--drain_seconds", 5.0, "how long to answer after SIGTERM, while not ready any more", type=_seconds)
    option("--logger_url", "", "send requests and answers there as CloudEvents")
    option("--logger_mode", "all", "what to send", choices=["all", "request", "response"])
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)  # what a supervisor tells a process of its own
    options = parser.parse_args()
    if options.enable_grpc and options.grpc_port == options.http_port != 0:
        parser.error(f"argument --grpc_port: {options.grpc_port} is --http_port, too; give another one")
    return options


def worker_count(options: argparse.Namespace, backend: str = "onnx") -> int:
    """How many processes answer.

    Args:
        options: Of the command line.
        backend: That runs the model. TensorFlow takes seven times the memory, and is slower than Python's own part.
    """
    if options.workers:
        return int(options.workers)
    # A connection is handed on, and a port shared, as Linux does it.
    if sys.platform != "linux" or "tensorflow" in (backend, options.backend):
        return 1
    # Half of the memory is left to requests.
    return max(1, min(usable_cores(), usable_memory() // 2 // _worker_bytes(options.model_dir)))


def _worker_bytes(model_dir: Path) -> int:
    """What a worker takes with ONNX Runtime, which keeps a model's weights more than once while it loads them."""
    weights = max((file.stat().st_size for file in model_dir.glob(f"*/{ONNX_MODEL}")), default=0)
    return WORKER_BYTES + 4 * weights


def parallel_batches(options: argparse.Namespace, workers: int) -> int:
    """How many batches each of so many processes computes at the same time."""
    return int(options.parallel_batches) or -(-usable_cores() // workers)


def _at_least_one(text: str) -> int:
    return _number(text, 1)


def _none_or_more(text: str) -> int:
    return _number(text, 0)


def _number(text: str, least: int) -> int:
    with suppress(ValueError):
        if int(text) >= least:
            return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {text!r}")


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected seconds, 0 or more, got {text!r}")


def _some_seconds(text: str) -> float:
    if seconds := _seconds(text):
        return seconds
    raise argparse.ArgumentTypeError(f"expected seconds, more than 0, got {text!r}")


def _name(text: str) -> str:
    if not text or "/" in text:
        raise argparse.ArgumentTypeError(f"expected a name without /, as it is part of URLs, got {text!r}")
    return text


def _yes_or_no(text: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return values[text.lower()]
