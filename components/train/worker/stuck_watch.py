"""Notices that this worker does not get on: another one keeps it waiting, or it is stuck itself.

A peer that was killed closes its connections, and one that hangs gives no sign of life; TensorFlow notices both. A peer
that is alive and stuck (a disk that does not answer, say) keeps all others waiting without end. TensorFlow's answer to
that, a time-out of the collectives, starts a thread for each of them that sleeps for as long as the time-out: two a
step, until the process can have no more threads. Here one thread a worker looks at a clock.
"""

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from kfp_image_classification.components.train.worker.exit_codes import PEER_LOST, leave

# The exchange knows which worker is waited for.
WORD_SECONDS = 5.0
# A worker that is itself stuck leaves after those that wait for it: they are to be heard first, and by then the
# launcher may have ended it.
OWN_SECONDS = 10.0
POLL_SECONDS = 1.0

Item = TypeVar("Item")


class StuckWatch:
    """Ends the process when what it does takes too long. To be made by the thread that trains."""

    def __init__(self, seconds: float) -> None:
        """Starts to watch with the first word of `gets_on`.

        Args:
            seconds: That anything may take, before the process leaves as one that lost a peer.
        """
        self._seconds, self._patience = seconds, 0.0
        self._trains = threading.get_ident()
        self._doing: tuple[str, float] | None = None
        threading.Thread(target=self._watch, name="stuck-watch", daemon=True).start()

    def gets_on(self, doing: str) -> None:
        """Says what the worker does from now on; its time counts from now."""
        self._doing = (doing, time.monotonic())

    def over(self, doing: str, items: Iterable[Item]) -> Iterator[Item]:
        """Passes items on; each may take as long as anything else."""
        for item in items:
            self.gets_on(doing)
            yield item

    def lets_sums_speak_first(self) -> None:
        """Says that the sums between the workers notice one that is stuck, too, and can name it."""
        self._patience = WORD_SECONDS

    @property
    def is_on(self) -> bool:
        """Whether the worker does something that others wait for."""
        return self._doing is not None

    def rests(self) -> None:
        """Says that what comes now has a limit of its own."""
        self._doing = None

    def _watch(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            doing = self._doing
            if doing is None or time.monotonic() - doing[1] < self._seconds + self._patience:
                continue
            waits, place = self._place()
            if waits:
                leave(
                    PEER_LOST,
                    f"error: another worker is stuck, or what this one reads: {doing[0]} did not get on for "
                    f"stuck_seconds = {self._seconds:g}",
                )
            if time.monotonic() - doing[1] > self._seconds + OWN_SECONDS:
                leave(
                    PEER_LOST,
                    f"error: this worker is stuck in {place}: {doing[0]} did not get on for more than "
                    f"stuck_seconds = {self._seconds:g}",
                )

    def _place(self) -> tuple[bool, str]:
        """Whether the thread that trains is in TensorFlow, where it waits for others; and the line in which it is."""
        frame = sys._current_frames()[self._trains]
        module = str(frame.f_globals.get("__name__", ""))
        return module.split(".")[0] == "tensorflow", f"line {frame.f_lineno} of {frame.f_code.co_filename}"
