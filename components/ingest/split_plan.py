"""Which images train, which validate and which test."""

from collections.abc import Iterator

import numpy as np

from kfp_image_classification.components.contracts.dataset_manifest import SPLITS, SplitName
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sources import Source
from kfp_image_classification.components.step.errors import InvalidInput

# For sources without a test split. The seed is fixed: results with different seeds stay comparable.
TEST_SHARE = 0.2
TEST_SEED = 20_211


class SplitPlan:
    """Which image of a source goes to which split."""

    def __init__(self, source: Source, validation_share: float, seed: int) -> None:
        self._source = source
        self._test = next((source.splits[name] for name in ("test", "validation") if name in source.splits), None)
        count = source.splits["train"].examples
        # One byte an image: an index into SPLITS.
        self._roles = np.full(count, SPLITS.index("train"), np.uint8)
        if self._test is None:
            chosen = np.random.default_rng(TEST_SEED).permutation(count)[: round(count * TEST_SHARE)]
            self._roles[chosen] = SPLITS.index("test")
        rest = np.flatnonzero(self._roles == SPLITS.index("train"))
        chosen = np.random.default_rng(seed).permutation(rest)[: round(len(rest) * validation_share)]
        self._roles[chosen] = SPLITS.index("validation")

    def count(self, split: SplitName) -> int:
        own = int(np.count_nonzero(self._roles == SPLITS.index(split)))
        return own + (self._test.examples if split == "test" and self._test else 0)

    def assigned_images(self) -> Iterator[tuple[SplitName, np.ndarray, int]]:
        for role, (pixels, label) in zip(self._roles, self._source.splits["train"].images(), strict=True):
            yield SPLITS[role], pixels, label
        if self._test:
            for pixels, label in self._test.images():
                yield "test", pixels, label


def plan_splits(source: Source, options: IngestOptions) -> SplitPlan:
    """Plans the splits.

    Raises:
        InvalidInput: When a split would have fewer images than there are workers.
    """
    plan = SplitPlan(source, options.validation_share, options.seed)
    short = [
        f"dataset = {source.name!r}: only {plan.count(name)} {name} images for workers = {options.workers}; "
        "each worker needs at least one: use fewer workers, another validation_share or a larger data set"
        for name in SPLITS
        if plan.count(name) < options.workers
    ]
    if short:
        raise InvalidInput(short)
    return plan
