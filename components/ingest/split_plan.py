"""Which images train, which validate and which test."""

from dataclasses import replace

import numpy as np

from kfp_image_classification.components.contracts.dataset_manifest import SPLITS, SplitName
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sources.learnable import why_not_learnable
from kfp_image_classification.components.ingest.sources.source import Examples, Source
from kfp_image_classification.components.ingest.stratified import stratified_choice
from kfp_image_classification.components.step.errors import InvalidInput

# For sources without a test split. The seed is fixed: results with different seeds stay comparable.
TEST_SHARE = 0.2
TEST_SEED = 20_211


def _without_unlabelled(source: Source) -> Source:
    """Without test and validation splits that have no labels: those of a competition, which keeps them to itself."""
    kept = {
        split: examples
        for split, examples in source.splits.items()
        if split == "train" or not len(examples) or not (examples.labels() < 0).all()
    }
    left_out = {
        f"images of the {split} split, which has no labels": len(examples)
        for split, examples in source.splits.items()
        if split not in kept
    }
    return replace(source, splits=kept, skipped={**source.skipped, **left_out})


class SplitPlan:
    """Which example of a source goes to which split.

    The source's own test and validation splits are used as they are. What it lacks is carved from its training
    examples, class by class.

    Attributes:
        source: Without those of its splits that have no labels.
    """

    def __init__(self, source: Source, validation_share: float, seed: int) -> None:
        self.source = _without_unlabelled(source)
        train = source.splits["train"]
        labels = train.labels()
        # One byte an example: an index into SPLITS.
        self._roles = np.full(len(train), SPLITS.index("train"), np.uint8)
        if "test" not in self.source.splits:
            self._carve("test", labels, TEST_SHARE, TEST_SEED)
        if "validation" not in self.source.splits:
            self._carve("validation", labels, validation_share, seed)

    def _carve(self, split: SplitName, labels: np.ndarray, share: float, seed: int) -> None:
        left = np.flatnonzero(self._roles == SPLITS.index("train"))
        chosen = stratified_choice(labels[left], share, np.random.default_rng(seed))
        self._roles[left[chosen]] = SPLITS.index(split)

    def class_counts(self, split: SplitName) -> dict[str, int]:
        """Examples of each class in a split.

        Raises:
            InvalidInput: When a label is none of the source's classes.
        """
        names = self.source.class_names
        labels = np.concatenate([examples.labels()[indices] for examples, indices in self.parts(split)])
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
            wrong = next(label for label in labels if not 0 <= label < len(names))
            raise InvalidInput(
                f"dataset = {self.source.name!r}: a {split} image has the label {wrong}, and there are {len(names)} "
                "classes; mend the data set"
            )
        return {name: int(n) for name, n in zip(names, np.bincount(labels, minlength=len(names)), strict=True)}

    def count(self, split: SplitName) -> int:
        return sum(len(indices) for _, indices in self.parts(split))

    def parts(self, split: SplitName) -> list[tuple[Examples, np.ndarray]]:
        """What a split consists of: some examples of the source, each time with the indices of those that belong."""
        own = self.source.splits.get(split)
        if own is not None and split != "train":
            return [(own, np.arange(len(own)))]
        return [(self.source.splits["train"], np.flatnonzero(self._roles == SPLITS.index(split)))]


def count_to_train(source: Source, options: IngestOptions) -> int:
    """How many examples will train, from their number alone: labels may lie far away.

    It is exact where each class has several examples.
    """
    left = len(source.splits["train"])
    if "test" not in source.splits:
        left -= round(left * TEST_SHARE)
    return left if "validation" in source.splits else left - round(left * options.validation_share)


def plan_splits(source: Source, options: IngestOptions) -> SplitPlan:
    """Plans the splits.

    Raises:
        InvalidInput: When a split would have fewer images than there are workers, or the training images show no more
            than one class.
    """
    plan = SplitPlan(source, options.validation_share, options.seed)
    if problems := why_not_learnable({split: plan.class_counts(split) for split in SPLITS}):
        raise InvalidInput(f"dataset = {source.name!r}: {problem}" for problem in problems)
    short = [
        f"dataset = {source.name!r}: only {plan.count(name)} {name} images for workers = {options.workers}; "
        "each worker needs at least one: use fewer workers, another validation_share or a larger data set"
        for name in SPLITS
        if plan.count(name) < options.workers
    ]
    if short:
        raise InvalidInput(short)
    return plan
