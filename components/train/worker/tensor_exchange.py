"""Sums TensorFlow's tensors through an exchange, with a single copy on the way there and none on the way back."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.step.stage_log import stage_log
from kfp_image_classification.components.train.exchange import Exchange, ExchangeFailed
from kfp_image_classification.components.train.exchange.numbers import Floats, Wire
from kfp_image_classification.components.train.job_files import EXCHANGE_TOKEN_FILE
from kfp_image_classification.components.train.options import TrainingJob
from kfp_image_classification.components.train.worker.devices import ComputeDevices
from kfp_image_classification.components.train.worker.tf_config import Cluster

# TensorFlow takes an array over as a tensor, without a copy, when it begins at a multiple of this.
ALIGNED_BYTES = 64
# The few numbers that are summed once a call.
LEAST_VALUES = 1024


def uses_sockets(exchange: str, workers: int, devices: ComputeDevices) -> bool:
    """Whether workers sum through an exchange, rather than TensorFlow; to be decided once, before any port is opened.

    Args:
        exchange: `auto`, `sockets` or `ring`.
        workers: How many there are.
        devices: What this worker computes on, the same for all.

    Raises:
        InvalidInput: When they were asked to, and cannot.
    """
    if exchange == "sockets" and devices.gpus > 1:
        raise InvalidInput(
            f"exchange = 'sockets': a worker with {devices.gpus} GPUs sums over NCCL; use auto, or a GPU a worker"
        )
    if workers == 1 or exchange == "ring":
        return False
    return exchange == "sockets" or not devices.joined_by_nccl


class TensorExchange:
    """Sums tensors over all workers, inside a `tf.function` or outside.

    Attributes:
        failure: Why a sum failed; TensorFlow passes on no more than its words.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._memories: dict[tuple[tuple[int, ...], ...], tuple[Floats, list[NDArray[np.float32]]]] = {}
        self.failure: ExchangeFailed | None = None

    @classmethod
    def join(
        cls, job: TrainingJob, cluster: Cluster, attempt: int, shapes: Iterable[tuple[int, ...]]
    ) -> "TensorExchange":
        """Meets the other workers at the ports above TensorFlow's.

        Args:
            job: What is trained.
            cluster: Who trains together.
            attempt: The job's, the same for all workers.
            shapes: Of all that is summed at once, at most.

        Raises:
            InvalidInput: When there is no token in the job's folder.
            ExchangeFailed: When the workers do not come together.
        """
        print(f"sums travel through sockets, port {cluster.exchange_addresses[cluster.index]}", flush=True)
        return cls(
            Exchange.join(
                cluster.exchange_addresses,
                cluster.index,
                token=_token(Path(job.directory, EXCHANGE_TOKEN_FILE)),
                job=job.directory,
                attempt=attempt,
                values=max(LEAST_VALUES, sum(map(_values, shapes))),
                gather_seconds=job.options.peer_seconds,
                stuck_seconds=job.options.stuck_seconds,
                log=stage_log("exchange"),
            )
        )

    def sum(self, tensors: Sequence[tf.Tensor], dtype: tf.DType = tf.float32) -> list[tf.Tensor]:
        """Sums tensors of known shapes.

        Args:
            tensors: Of any floating-point type; they are added up in float32.
            dtype: How they travel: float32, or bfloat16 with half the bytes.

        Returns:
            The sums, of the same types. All share one piece of memory that the next sum overwrites: what outlives a
            step has to be copied.
        """
        wire: Wire = "bfloat16" if dtype == tf.bfloat16 else "float32"
        shapes = tuple(tuple(tensor.shape) for tensor in tensors)
        # Not once a trace: TensorFlow may trace a step several times.
        if shapes not in self._memories:
            self._memories[shapes] = _memory(shapes)
        numbers, parts = self._memories[shapes]

        def sum_arrays(*arrays: NDArray[np.float32]) -> list[NDArray[np.float32]]:
            for part, array in zip(parts, arrays, strict=True):
                np.copyto(part, array)
            try:
                self._exchange.sum(numbers, wire=wire)
            except ExchangeFailed as error:
                self.failure = error
                raise
            return parts

        given = [tf.cast(tensor, tf.float32) for tensor in tensors]
        totals = tf.numpy_function(sum_arrays, given, [tf.float32] * len(given))
        return [
            tf.cast(tf.ensure_shape(total, tensor.shape), tensor.dtype)
            for total, tensor in zip(tf.nest.flatten(totals), tensors, strict=True)  # of one, outside a graph, no list
        ]

    def sum_one(self, tensor: tf.Tensor) -> tf.Tensor:
        """Sums a tensor of a few numbers in float32."""
        return self.sum([tensor])[0]

    def close(self) -> None:
        """Leaves the others; there is nothing more to sum."""
        self._exchange.close()


def _memory(shapes: Sequence[tuple[int, ...]]) -> tuple[Floats, list[NDArray[np.float32]]]:
    """Makes an array for all, and views of it for each, which begin where TensorFlow wants them."""
    sizes = [_values(shape) for shape in shapes]
    memory = np.zeros(sum(sizes) * 4 + ALIGNED_BYTES, np.uint8)
    start = -memory.ctypes.data % ALIGNED_BYTES
    numbers: Floats = memory[start : start + sum(sizes) * 4].view(np.float32)
    starts = np.cumsum([0, *sizes])
    return numbers, [
        numbers[start : start + math.prod(shape)].reshape(shape)
        for start, shape in zip(starts[:-1], shapes, strict=True)
    ]


def _values(shape: tuple[int, ...]) -> int:
    """Numbers that a tensor takes up, so that the next one begins where TensorFlow wants it."""
    grain = ALIGNED_BYTES // 4
    return -(-math.prod(shape) // grain) * grain


def _token(file: Path) -> bytes:
    try:
        return bytes.fromhex(file.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{file}: the secret by which the job's workers know each other cannot be read ({error}); whoever starts "
            "workers puts it there with claim_directory, or gives exchange = ring"
        ) from None
