"""What a pod has printed so far."""

import datetime
import threading
import time


class PodLog:
    """Lines with their times; grows until the pod ends."""

    def __init__(self) -> None:
        self.grown = threading.Condition()
        self.lines: list[tuple[float, str]] = []

    def write(self, text: str, at: float | None = None) -> None:
        with self.grown:
            self.lines += [(at or time.time(), line) for line in text.splitlines()]
            self.grown.notify_all()

    def read(self, start: int, timestamps: bool) -> list[str]:
        with self.grown:
            return [f"{_rfc3339(at)} {line}" if timestamps else line for at, line in self.lines[start:]]

    def first_since(self, seconds: float) -> int:
        """Index of the first line printed in the last so many seconds."""
        with self.grown:
            return sum(at < time.time() - seconds for at, _ in self.lines)


def _rfc3339(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
