"""Where a worker's time goes: it says which phase begins, and everything until the next belongs to it."""

import time


class PhaseTimes:
    """Wall-clock seconds by phase, of which none is left out: `start` runs from the start of the process."""

    def __init__(self, started: float) -> None:
        """Begins with the phase `start`.

        Args:
            started: When the process started, in seconds of the Unix clock.
        """
        self.started = started
        self._seconds: dict[str, float] = {}
        self._phase = "start"
        self._since = time.monotonic() - (time.time() - started)

    def enter(self, phase: str) -> None:
        """Ends the phase of before, and begins one, which can have been there already."""
        now = time.monotonic()
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    def seconds(self) -> dict[str, float]:
        """By phase, up to now."""
        self.enter(self._phase)
        return dict(self._seconds)
