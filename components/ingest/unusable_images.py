"""Images that cannot be used are all named at once, each with what it is, so that a user mends the source in one go."""

from collections.abc import Iterable

from kfp_image_classification.components.contracts.image_formats import remedy, what_it_is
from kfp_image_classification.components.step.errors import InvalidInput

# A message with more is read by nobody; the rest is counted.
MOST_NAMED = 200


class UnusableImages(InvalidInput):
    """Image files of a source that cannot be learnt from.

    Attributes:
        reasons: What is wrong with each, a sentence with its name. Those of several parts of a source add up.
    """

    def __init__(self, dataset: str, reasons: Iterable[str]) -> None:
        self.reasons = list(reasons)
        named = [f"dataset = {dataset!r}: {reason}" for reason in self.reasons[:MOST_NAMED]]
        left = len(self.reasons) - MOST_NAMED
        rest = [f"dataset = {dataset!r}: and {left:,} more images that cannot be used"] if left > 0 else []
        super().__init__(named + rest)


def unusable(name: str, content: bytes) -> str:
    """Says of an image that does not decode what it is, and what to do."""
    return f"{name} is {what_it_is(content)}; {remedy(content)}"
