"""How an outage of the cluster's API is told: once, then ever more rarely, and when it is over."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

FIRST_REMINDER_SECONDS = 30.0


class Outage:
    """Told by all threads that use one client of the API; tells a person."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None
        self._next_reminder = self._interval = 0.0

    @property
    def is_on(self) -> bool:
        return self._since is not None

    def failed(self, why: str, pause: float, tell: Callable[[str], None]) -> None:
        """Notes a request that failed, and will be repeated after a pause (s)."""
        with self._lock:
            now = time.monotonic()
            if self._since is None:
                self._since, self._interval = now, FIRST_REMINDER_SECONDS
                tell(f"the cluster's API: {why}; trying again in {pause:.1f} s, and then until it answers")
            elif now < self._next_reminder:
                return
            else:
                tell(f"the cluster's API is still away after {now - self._since:.0f} s: {why}")
                self._interval *= 2
            self._next_reminder = now + self._interval

    def answered(self, tell: Callable[[str], None]) -> None:
        """Notes a request that was answered."""
        if self._since is None:  # the usual case takes no lock
            return
        with self._lock:
            if self._since is not None:
                tell(f"the cluster's API answers again, after {time.monotonic() - self._since:.1f} s")
                self._since = None


_outages: "WeakKeyDictionary[ApiClient, Outage]" = WeakKeyDictionary()
_lock = threading.Lock()


def outage_of(client: "ApiClient") -> Outage:
    """The one outage of which all users of a client hear."""
    with _lock:
        return _outages.setdefault(client, Outage())
