"""A worker that is told to go, by SIGTERM, lets the job save its state first."""

import signal
from types import FrameType

from components.train.exit_codes import PREEMPTED, leave


class Preempted(Exception):
    """The job saved its state and stops, because some worker was told to go."""


class PreemptionNotice:
    """Whether this process was sent SIGTERM since this was made; a second SIGTERM ends the process at once.

    To be made after TensorFlow has joined its peers: joining, it takes the signal for itself.
    """

    def __init__(self) -> None:
        self.given = False
        signal.signal(signal.SIGTERM, self._take)
        # Ctrl-C reaches the launcher as well, and it is the launcher that stops its workers.
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _take(self, signum: int, frame: FrameType | None) -> None:
        if self.given:
            leave(PREEMPTED, "told to go twice; the state is not saved")
        self.given = True
