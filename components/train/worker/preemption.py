"""A worker that is told to go, by SIGTERM, lets the job save its state first."""

import signal
import threading

from kfp_image_classification.components.train.worker.exit_codes import PREEMPTED, leave


class Preempted(Exception):
    """The job saved its state and stops, because some worker was told to go."""


class PreemptionNotice:
    """Whether this process was sent SIGTERM.

    While nothing is trained yet, and at a second SIGTERM, the process ends at once.

    To be made before any other thread is started. TensorFlow installs a signal handler of its own at some time after
    it has joined its peers. So the signal is blocked, which all later threads inherit, and a thread waits for it:
    then no handler, whoever installed it, ever sees it.
    """

    def __init__(self) -> None:
        self.given = False
        self._training = False
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        # Ctrl-C reaches the launcher as well, and it is the launcher that stops its workers.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=self._listen, name="preemption-notice", daemon=True).start()

    def training_begins(self) -> None:
        """From now on there is something to save."""
        self._training = True

    def _listen(self) -> None:
        signal.sigwait({signal.SIGTERM})
        if not self._training:
            leave(PREEMPTED, "told to go before the training began")
        self.given = True
        signal.sigwait({signal.SIGTERM})
        leave(PREEMPTED, "told to go twice; the state is not saved")
