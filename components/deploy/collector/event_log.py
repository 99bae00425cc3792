"""Events become files: a file when enough have come, or some time has gone by, and the oldest files go.

Events wait in memory until their file is written, within a bound. While the folder does not take files, they stay
there, and when the bound is reached no more are accepted: who sends them counts them.
"""

import logging
import re
import secrets
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from kfp_image_classification.components.contracts.folders import Folder, FolderFailed
from kfp_image_classification.components.contracts.payload_events import PayloadEvent
from kfp_image_classification.components.contracts.payload_files import FORMATS, Format
from kfp_image_classification.components.deploy.collector.collector_metrics import EVENTS, KEPT_BYTES, WAITING_BYTES

RETRY_SECONDS = 5.0
# What an event takes beside its body.
OVERHEAD = 500
# As `_name` makes them, in every format: the log goes on when its format changes, and what others put there stays.
_OWN_FILE = re.compile(
    rf"\d{{8}}/\d\d/\d{{8}}T\d{{6}}-[0-9a-f]{{8}}({'|'.join(re.escape(one.suffix) for one in FORMATS.values())})"
)


@dataclass(frozen=True)
class Limits:
    """Bounds of a log.

    Attributes:
        file_bytes: Bodies in a file.
        file_seconds: How long an event waits for others, at most.
        waiting_bytes: Bodies in memory.
        kept_bytes: All files together.
    """

    file_bytes: int
    file_seconds: float
    waiting_bytes: int
    kept_bytes: int


class EventLog:
    """Writes events to a folder, from a thread of its own.

    Args:
        folder: Where to.
        file_format: In which form.
        limits: How much.
        log: Told when the folder fails, and when it works again.
    """

    def __init__(self, folder: Folder, file_format: Format, limits: Limits, log: logging.Logger) -> None:
        self._folder = folder
        self._format = file_format
        self._limits = limits
        self._log = log
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._events: list[PayloadEvent] = []
        self._bytes = 0
        self._since = 0.0
        self._writing_bytes = 0
        self._ends = False
        self._failing = False
        self._thread = threading.Thread(target=self._work, name="event-log")
        self._thread.start()

    def add(self, event: PayloadEvent) -> bool:
        """Takes an event, at once; returns False when too many wait."""
        size = len(event.body) + OVERHEAD
        with self._lock:
            if self._bytes + self._writing_bytes + size > self._limits.waiting_bytes:
                EVENTS.labels("refused").inc()
                return False
            if not self._events:
                self._since = time.monotonic()
            self._events.append(event)
            self._bytes += size
            WAITING_BYTES.set(self._bytes + self._writing_bytes)
            full = self._bytes >= self._limits.file_bytes
        if full:
            self._wake.set()
        return True

    def close(self) -> None:
        """Writes what waits, and ends; tries it once."""
        self._ends = True
        self._wake.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ends:
            self._wake.wait(min(1.0, self._limits.file_seconds))
            self._wake.clear()
            if self._due() and not self._write() and not self._ends:
                time.sleep(min(RETRY_SECONDS, self._limits.file_seconds))
        if not self._write():
            self._log.error("%d events are lost: the folder does not take them", len(self._events))
            EVENTS.labels("lost").inc(len(self._events))

    def _due(self) -> bool:
        with self._lock:
            late = self._events and time.monotonic() - self._since >= self._limits.file_seconds
            return bool(late or self._bytes >= self._limits.file_bytes)

    def _write(self) -> bool:
        with self._lock:
            events, self._events = self._events, []
            self._writing_bytes, self._bytes = self._bytes, 0
        if not events:
            return True
        try:
            self._folder.write(_name(self._format.suffix), self._format.content(events))
            EVENTS.labels("kept").inc(len(events))
            written = True
        except FolderFailed as error:
            self._tell_failing(str(error))
            written = False
        except Exception:  # events that make no file would never make one, and this thread must go on with others
            self._log.exception("%d events are lost: they make no file", len(events))
            EVENTS.labels("lost").inc(len(events))
            written = True
        with self._lock:
            if not written:
                self._events = events + self._events
                self._bytes += self._writing_bytes
            self._writing_bytes = 0
            WAITING_BYTES.set(self._bytes)
        if written:
            self._delete_oldest()
        return written

    def _delete_oldest(self) -> None:
        try:
            files = [file for file in self._folder.files() if _OWN_FILE.fullmatch(file.name)]
            total = sum(file.size for file in files)
            gone = []
            for file in files[:-1]:
                if total <= self._limits.kept_bytes:
                    break
                gone.append(file.name)
                total -= file.size
            if gone:
                self._folder.delete(gone)
            KEPT_BYTES.set(total)
            if self._failing:
                self._log.info("the folder takes events again")
            self._failing = False
        except FolderFailed as error:
            self._tell_failing(str(error))

    def _tell_failing(self, reason: str) -> None:
        if not self._failing:
            self._log.warning("%s; events wait", reason)
        self._failing = True


def _name(suffix: str) -> str:
    """One that no other collector of the same folder has; by the hour, so that no folder gets too many."""
    return f"{datetime.now(UTC):%Y%m%d/%H/%Y%m%dT%H%M%S}-{secrets.token_hex(4)}{suffix}"
