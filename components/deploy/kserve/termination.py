"""SIGTERM as an exception, so that what was begun is undone on the way out."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from kfp_image_classification.components.step.process_owner import leave_with_owner


class Terminated(BaseException):
    """This process was told to end. Not an Exception: nothing that handles errors may take it for one."""


def terminate_with_owner() -> None:
    """Leaves when the process that started this one is gone, as at a SIGTERM: what was begun is undone first."""
    leave_with_owner(lambda: os.kill(os.getpid(), signal.SIGTERM))


@contextmanager
def terminated_as_exception() -> Iterator[None]:
    """Raises Terminated in the main thread at the first SIGTERM; later ones are ignored, so that undoing can finish."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
