"""The learning-rate schedule, in shares of the training, so that it means the same for any number of epochs."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


WARM_UP = "warmup"
COSINE = "cosine"
EXPECTED = (
    "expected SHARE:RATE pairs apart by spaces, such as 0:1e-3 0.3:1e-4 0.7:1e-5, or cosine:RATE; "
    "before either, warmup:SHARE"
)


@dataclass(frozen=True)
class Schedule:
    """The rate of each step.

    Attributes:
        steps: (share of the epochs from 0 to below 1, rate) pairs in ascending order, the first at 0: the rate from the
            first epoch on that begins there. With `cosine` a single one, the rate to begin with.
        cosine: Whether the rate falls to 0 along half a cosine, from the end of the warm-up on.
        warm_up: Share of the training in which the rate rises to what it would be without; from 0 to below 1.
    """

    steps: tuple[tuple[float, float], ...]
    cosine: bool = False
    warm_up: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Reads `SHARE:RATE` pairs apart by spaces or `cosine:RATE`, with `warmup:SHARE` before either.

        Raises:
            ValueError: Saying what is wrong and what is expected.
        """
        try:
            words = [(key, float(number)) for key, number in (word.split(":") for word in text.split())]
            warm_up = words.pop(0)[1] if words and words[0][0] == WARM_UP else 0.0
            cosine = len(words) == 1 and words[0][0] == COSINE
            steps = ((0.0, words[0][1]),) if cosine else tuple((float(share), rate) for share, rate in words)
        except ValueError:
            raise ValueError(EXPECTED) from None
        if not 0 <= warm_up < 1:
            raise ValueError("the share of the warm-up must be at least 0 and below 1, such as warmup:0.05")
        shares = [share for share, _ in steps]
        if not steps or shares[0] != 0 or shares != sorted(set(shares)) or shares[-1] >= 1:
            raise ValueError("the shares must start at 0, rise, and stay below 1")
        if not all(0 < rate < math.inf for _, rate in steps):
            raise ValueError("each rate must be a number above 0")
        return cls(steps, cosine, warm_up)

    def rates(self, epochs: int, epoch_steps: int) -> "NDArray[np.float32]":
        """The rate of each step of a training.

        Args:
            epochs: Of the training.
            epoch_steps: Steps of an epoch.

        Returns:
            float32 [epochs * epoch_steps].
        """
        count = epochs * epoch_steps
        import numpy as np  # an option's text is read before a run has settled which NumPy it takes

        step = np.arange(count)
        warming = self.warm_up * count
        if self.cosine:
            progress = np.clip((step - warming) / (count - warming), 0, 1)
            rates = self.steps[0][1] * (1 + np.cos(np.pi * progress)) / 2
        else:
            epoch = step // epoch_steps
            rates = np.zeros(count)
            for share, rate in self.steps:
                rates[epoch >= share * epochs] = rate
        if warming:
            rates = rates * np.minimum(1, (step + 1) / warming)
        return rates.astype(np.float32)
