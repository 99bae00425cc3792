"""SIGTERM as an exception, so that what was begun is undone on the way out."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(BaseException):
    """This process was told to end. Not an Exception: nothing that handles errors may take it for one."""


def tell_to_end() -> None:
    """Sends this process a SIGTERM, for what has to undo something first when its owner is gone."""
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def terminated_as_exception() -> Iterator[None]:
    """Raises Terminated in the main thread at the first SIGTERM; later ones are ignored, so that undoing can finish.

    Python lets only the main thread handle signals; what another thread does is its caller's to end.
    """
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
