"""How long a rollout is waited for, and when a failure in a service's status counts."""

import logging
import time

from kfp_image_classification.components.deploy.kserve.options import ServiceOptions
from kfp_image_classification.components.deploy.kserve.status import Verdict


class Patience:
    """Tells people what is waited for, and says when the waiting is over."""

    def __init__(self, name: str, options: ServiceOptions, log: logging.Logger) -> None:
        self._name = name
        self._options = options
        self._log = log
        self._patience = {
            "pod": 0.0,
            "unschedulable": options.unschedulable_seconds,
            "status": options.settle_seconds,
        }
        self._started = time.monotonic()
        self._failing_since = 0.0
        self._evidence = ""
        self._told = ""

    def problem(self, now: Verdict) -> str:
        """Takes note of a verdict; empty while there is hope."""
        elapsed = time.monotonic() - self._started
        if now.evidence != self._evidence:
            self._evidence, self._failing_since = now.evidence, elapsed
        if now.state == "failing" and elapsed - self._failing_since >= self._patience[now.evidence]:
            return f"{self._name} cannot become ready: {now.reason}"
        if elapsed > self._options.wait_seconds:
            seconds = f"{self._options.wait_seconds:.0f} s (service.wait_seconds)"
            return f"{self._name} is not ready after {seconds}: {now.reason}"
        if now.reason != self._told:
            self._log.info("waiting (%.0f s): %s", elapsed, now.reason)
            self._told = now.reason
        return ""
