"""The learning-rate schedule: steps at shares of the training, so that it means the same for any number of epochs."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LearningRateSteps:
    """A rate from each share of the epochs on.

    Attributes:
        steps: (share of the training from 0 to below 1, rate) pairs in ascending order, the first at 0.
    """

    steps: tuple[tuple[float, float], ...]

    @classmethod
    def parse(cls, text: str) -> "LearningRateSteps":
        """Reads `SHARE:RATE` pairs apart by spaces, such as `0:1e-3 0.3:1e-4 0.7:1e-5`.

        Raises:
            ValueError: Saying what is wrong and what is expected.
        """
        try:
            steps = tuple((float(share), float(rate)) for share, rate in (pair.split(":") for pair in text.split()))
        except ValueError:
            raise ValueError("expected SHARE:RATE pairs apart by spaces, such as 0:1e-3 0.3:1e-4 0.7:1e-5") from None
        shares = [share for share, _ in steps]
        if not steps or shares[0] != 0 or shares != sorted(set(shares)) or shares[-1] >= 1:
            raise ValueError("the shares must start at 0, rise, and stay below 1")
        if not all(0 < rate < math.inf for _, rate in steps):
            raise ValueError("each rate must be a number above 0")
        return cls(steps)

    def at(self, epoch: int, epochs: int) -> float:
        """The rate of an epoch, counted from 0."""
        return next(rate for share, rate in reversed(self.steps) if epoch >= share * epochs)
