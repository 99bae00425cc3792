"""Images that cannot be used are all named at once, each with what it is, so that a user mends the source in one go."""

from collections.abc import Iterable

from kfp_image_classification.components.step.errors import InvalidInput

# A message with more is read by nobody; the rest is counted.
MOST_NAMED = 200


class UnusableImages(InvalidInput):
    """Image files of a source that cannot be learnt from.

    Attributes:
        reasons: What is wrong with each, by its name; parts of a source can be told together, as their reasons add up.
    """

    def __init__(self, dataset: str, reasons: Iterable[tuple[str, str]]) -> None:
        self.reasons = list(reasons)
        problems = [
            f"dataset = {dataset!r}: {name} {reason}; remove or replace it"
            for name, reason in self.reasons[:MOST_NAMED]
        ]
        if left := len(self.reasons) - MOST_NAMED:
            problems += [f"dataset = {dataset!r}: and {left:,} more images that cannot be used"] * (left > 0)
        super().__init__(problems)
