"""What a version has answered since the server started, as Triton's statistics extension tells it.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
"""

import threading
import time
from collections.abc import Sequence
from typing import Any

PHASES = ("compute_input", "compute_infer", "compute_output")

# The statistics of one version, in Triton's form.
Told = dict[str, Any]


def summed(told: Sequence[Told]) -> Told:
    """The statistics of several processes as one's; at least one."""
    sizes = sorted({batch["batch_size"] for one in told for batch in one["batch_stats"]})
    batches = [[batch for one in told for batch in one["batch_stats"] if batch["batch_size"] == size] for size in sizes]
    return {
        "last_inference": max(one["last_inference"] for one in told),
        "inference_count": sum(one["inference_count"] for one in told),
        "execution_count": sum(one["execution_count"] for one in told),
        "inference_stats": _summed([one["inference_stats"] for one in told]),
        "batch_stats": [
            {"batch_size": size, **_summed([{phase: batch[phase] for phase in PHASES} for batch in same])}
            for size, same in zip(sizes, batches, strict=True)
        ],
    }


def _summed(durations: Sequence[dict[str, dict[str, int]]]) -> dict[str, dict[str, int]]:
    return {
        name: {field: sum(one[name][field] for one in durations) for field in ("count", "ns")} for name in durations[0]
    }


class Statistics:
    """Counts by version; several threads count at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: dict[str, _Version] = {}

    def add_request(self, version: str, images: int, seconds: float, succeeded: bool) -> None:
        """Counts a request.

        Args:
            version: That answered it.
            images: How many it had.
            seconds: From its arrival to its answer.
            succeeded: Whether it got one.
        """
        with self._lock:
            counts = self._of(version)
            counts.last_inference = int(1000 * time.time())
            counts.inference_count += images if succeeded else 0
            counts.durations["success" if succeeded else "fail"].add(seconds)

    def add_batch(
        self, version: str, images: int, executions: int, requests: int, waited: float, phases: Sequence[float]
    ) -> None:
        """Counts requests that were computed together.

        Args:
            version: That computed them.
            images: How many there were.
            executions: In how many parts they were computed.
            requests: How many they were.
            waited: Seconds that they had waited, added up.
            phases: Seconds that decoding, computing and handing out took.
        """
        with self._lock:
            counts = self._of(version)
            counts.execution_count += executions
            counts.durations["queue"].add(waited, requests)
            batch = counts.batches.get(images)
            if batch is None:
                batch = counts.batches[images] = {phase: _Duration() for phase in PHASES}
            for phase, seconds in zip(PHASES, phases, strict=True):
                counts.durations[phase].add(seconds, requests)
                batch[phase].add(seconds)

    def told(self, version: str) -> Told:
        """The answer for one version."""
        with self._lock:
            return self._of(version).told()

    def _of(self, version: str) -> "_Version":
        found = self._versions.get(version)
        if found is None:
            found = self._versions[version] = _Version()
        return found


class _Duration:
    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        self.count += count
        self.seconds += seconds

    def told(self) -> dict[str, int]:
        return {"count": self.count, "ns": round(1e9 * self.seconds)}


class _Version:
    def __init__(self) -> None:
        self.last_inference = 0
        self.inference_count = 0
        self.execution_count = 0
        self.durations = {name: _Duration() for name in ("success", "fail", "queue", *PHASES, "cache_hit")}
        self.batches: dict[int, dict[str, _Duration]] = {}

    def told(self) -> Told:
        return {
            "last_inference": self.last_inference,
            "inference_count": self.inference_count,
            "execution_count": self.execution_count,
            "inference_stats": {name: duration.told() for name, duration in self.durations.items()},
            "batch_stats": [
                {"batch_size": size, **{name: duration.told() for name, duration in phases.items()}}
                for size, phases in sorted(self.batches.items())
            ],
        }
