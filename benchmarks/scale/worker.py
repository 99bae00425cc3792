"""A worker that waits in place of computing, and sums for real: `python -m benchmarks.scale.worker`.

It reads what to do from standard input, a JSON object a line, answers each with one, and leaves when there is no more.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kfp_image_classification.components.train.exchange import Exchange
from kfp_image_classification.components.train.exchange.numbers import Floats, Wire

PORT = 2222
WARM_UP = 3
Measure = Callable[[dict[str, Any]], list[float]]


class Clock:
    """Waits, and knows when each wait began."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.begun: list[float] = []
        self._late = statistics.median(_late(0.005) for _ in range(20))

    def wait(self) -> None:
        self.begun.append(time.perf_counter())
        time.sleep(max(0.0, self.seconds - self._late))

    def steps(self) -> list[float]:
        """Seconds from each wait to the next."""
        return [after - before for before, after in zip(self.begun, self.begun[1:], strict=False)][WARM_UP:]


def _late(seconds: float) -> float:
    begun = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - begun - seconds


def sums_of(task: dict[str, Any]) -> list[tuple[int, Wire]]:
    """What is summed in a step, and how it travels, as our optimizer does it.

    The moving statistics of normalisation layers travel as float32, with the gradients or by themselves.
    """
    if task["dtype"] == "float32" or not task["statistics"]:
        return [(task["gradients"] + task["statistics"], task["dtype"])]
    return [(task["gradients"], task["dtype"]), (task["statistics"], "float32")]


def sockets(addresses: list[str], index: int, values: int, clock: Clock) -> Measure:
    """Sums by our exchange, into which the gradients are copied in each step."""
    exchange = Exchange.join(
        addresses,
        index,
        token=b"0" * 32,
        job="benchmark",
        attempt=0,
        values=values,
        gather_seconds=120,
        stuck_seconds=120,
    )

    def measure(task: dict[str, Any]) -> list[float]:
        sums: list[tuple[Floats, Floats, Wire]] = [
            (np.zeros(size, np.float32), np.ones(size, np.float32), wire) for size, wire in sums_of(task)
        ]
        for _ in range(task["steps"] + WARM_UP + 1):
            clock.wait()
            for numbers, gradients, wire in sums:
                np.copyto(numbers, gradients)
                exchange.sum(numbers, wire=wire)
        return clock.steps()

    return measure


def ring(addresses: list[str], index: int, values: int, clock: Clock) -> Measure:
    """Sums by TensorFlow's ring over gRPC, many steps a call, as a worker with `exchange: ring` does."""
    import tensorflow as tf

    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
    implementation = tf.distribute.experimental.CommunicationImplementation.RING
    strategy = tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(implementation=implementation)
    )

    def wait(number: Any) -> Any:
        clock.wait()
        return number

    def measure(task: dict[str, Any]) -> list[float]:
        sums = sums_of(task)

        @tf.function
        def train(gradients: list[tf.Tensor]) -> tf.Tensor:
            def step(last: tf.Tensor) -> tf.Tensor:
                waited = tf.ensure_shape(tf.numpy_function(wait, [last], tf.float32), [])
                for (_, wire), numbers in zip(sums, gradients, strict=True):
                    own = tf.cast(tf.concat([numbers, [waited]], 0), wire)
                    context = tf.distribute.get_replica_context()
                    total = context.all_reduce(tf.distribute.ReduceOp.SUM, own)
                    waited = tf.cast(total, tf.float32)[-1]
                return waited

            last = tf.constant(0.0)
            for _ in tf.range(task["steps"] + WARM_UP + 1):
                last = strategy.run(step, args=(last,))
            return last

        train([tf.zeros(size) for size, _ in sums]).numpy()
        return clock.steps()

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exchange", choices=["sockets", "ring"], required=True)
    parser.add_argument("--addresses", nargs="+", required=True)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--values", type=int, required=True, help="of a sum, at most")
    parser.add_argument("--core", type=int, required=True)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {arguments.core})
    clock = Clock()
    join = sockets if arguments.exchange == "sockets" else ring
    measure = join([f"{address}:{PORT}" for address in arguments.addresses], arguments.index, arguments.values, clock)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        clock.seconds, clock.begun = task["wait"], []
        print(json.dumps({"steps": measure(task)}), flush=True)
    # TensorFlow's threads wait for peers that have left.
    os._exit(0)


if __name__ == "__main__":
    main()
