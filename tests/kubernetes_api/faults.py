"""What can go wrong between a client and the API: errors, throttling, expired tokens, connections that break."""

import re
import threading
from dataclasses import dataclass, field


@dataclass
class Fault:
    """Something that happens to the next requests that match.

    Attributes:
        times: How many requests it happens to.
        verb: get, list, watch, create, update, patch, delete or log; any by default.
        path: Regular expression of the path; any by default.
        status: What is answered; 0 closes the connection without an answer.
        headers: Sent with the answer, `Retry-After` for one.
        after_events: Instead of an answer with `status`, a stream that breaks after so many events or lines.
        gone: Instead of an answer with `status`, a stream whose first event is the error 410.
    """

    times: int = 1
    verb: str = ""
    path: str = ""
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    after_events: int | None = None
    gone: bool = False


class Faults:
    """The faults still to come. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def take(self, verb: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and fault.verb in ("", verb) and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None
