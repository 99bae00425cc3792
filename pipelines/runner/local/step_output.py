"""Standard output while steps run: all of it goes to the log file, what stages tell people goes to the terminal."""

import io
import threading
from collections.abc import Callable
from typing import TextIO

from kfp_image_classification.pipelines.runner.local.progress import Progress


class StepOutput(io.TextIOBase):
    """A stream in place of sys.stdout and sys.stderr, written to by kfp.local's threads."""

    def __init__(self, log: TextIO, progress: Progress, show: Callable[[str], None], verbose: bool) -> None:
        """Passes output on.

        Args:
            log: Gets everything.
            progress: Learns from every line.
            show: Called with each line that a person is to see.
            verbose: Whether that is every line.
        """
        self._log = log
        self._progress = progress
        self._show = show
        self._verbose = verbose
        self._unfinished: dict[int, str] = {}  # by thread: several steps print at once

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._log.write(text)
        thread = threading.get_ident()
        *lines, self._unfinished[thread] = (self._unfinished.get(thread, "") + text).split("\n")
        for line in lines:
            told = self._progress.take(line, thread)
            if self._verbose:
                self._show(line)
            elif told:
                self._show(told)
        return len(text)

    def flush(self) -> None:
        self._log.flush()
