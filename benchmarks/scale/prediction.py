"""How long a step takes with more workers, other links, or larger batches: computation, rounds, and bytes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.scale.network import LINKS

BYTES = {"float32": 4, "bfloat16": 2}
Row = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """What a step consists of.

    Attributes:
        workers: How many.
        computation: Seconds.
        sums: How many numbers are summed at once, and how each travels.
        exchange: `sockets` or `ring`.
        link: Of each worker, a name of `LINKS`.
        latency: Seconds that a message is on its way, whatever its size.
    """

    workers: int
    computation: float
    sums: tuple[tuple[int, str], ...]
    exchange: str
    link: str
    latency: float = 0.0

    @property
    def rounds(self) -> int:
        each = self.workers - 1 if self.exchange == "ring" else math.ceil(math.log2(self.workers))
        return 2 * each * len(self.sums)

    @property
    def bytes(self) -> float:
        """Sent by each worker, and received by each."""
        return 2 * (self.workers - 1) / self.workers * sum(size * BYTES[dtype] for size, dtype in self.sums)

    @property
    def wire_seconds(self) -> float:
        """What the bytes take at the link's speed."""
        speed = LINKS[self.link]
        return 0.0 if speed is None else self.bytes * 8 / speed

    @property
    def latency_seconds(self) -> float:
        return 0.0 if LINKS[self.link] is None else self.rounds * self.latency


@dataclass(frozen=True)
class Costs:
    """What a worker's CPU spends, in seconds: for a message, and for a byte that it sends and receives.

    TensorFlow's ring has threads that handle messages while others are on their way; our exchange has a single one.
    """

    message: float
    byte: float

    @classmethod
    def of(cls, steps: Sequence[Step], seconds: Sequence[float]) -> "Costs":
        """Finds those that predict steps without limited links best, by the squares of the relative errors.

        None is negative. What limited links make of it follows.
        """
        measured = np.array(seconds)
        rest = (measured - [step.computation for step in steps]) / measured
        terms = np.array([[step.rounds, step.bytes] for step in steps]) / measured[:, None]
        found = np.linalg.lstsq(terms, rest)[0]
        if found.min() < 0:
            kept = int(found.argmax())
            found = np.zeros(2)
            found[kept] = max(0.0, float(terms[:, kept] @ rest / (terms[:, kept] @ terms[:, kept])))
        return cls(*map(float, found))

    def step_seconds(self, step: Step) -> float:
        handling = step.rounds * self.message + step.bytes * self.byte
        both = max(handling, step.wire_seconds) if step.exchange == "ring" else handling + step.wire_seconds
        return step.computation + step.latency_seconds + both

    def efficiency(self, step: Step) -> float:
        """Images a second, over those of as many workers that do not talk."""
        return step.computation / self.step_seconds(step)


def larger(step: Step, workers: int | None = None, batch_factor: float = 1.0) -> Step:
    """The same with more workers, or a larger batch, which takes as much longer."""
    return replace(step, workers=workers or step.workers, computation=step.computation * batch_factor)
