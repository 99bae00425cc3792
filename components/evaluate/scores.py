"""From a model's answers to numbers: counted batch by batch, so that no split is too large."""

from dataclasses import dataclass

import numpy as np

from kfp_image_classification.components.contracts.evaluation import ANSWER
from kfp_image_classification.components.contracts.measures import TOP, TOP_FROM_CLASSES, SplitScores
from kfp_image_classification.components.evaluate.intervals import by_class, mean, share

# Of confidence, for the calibration: equal widths, as in Guo et al., 2017 (https://arxiv.org/abs/1706.04599).
BINS = 15


def answers_of(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """What a batch of logits says of each image, as records of `ANSWER`.

    Args:
        labels: True classes, int [n].
        logits: float [n, classes].
    """
    rows = np.arange(len(labels))
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_likelihoods = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    answers = np.empty(len(labels), ANSWER)
    answers["label"] = labels
    answers["predicted"] = predicted = logits.argmax(axis=1)
    own = logits[rows, labels][:, None]
    # Of equal logits the first class is taken for the more likely one, as argmax takes it.
    before = (logits == own) & (np.arange(logits.shape[1]) < np.asarray(labels)[:, None])
    answers["rank"] = ((logits > own) | before).sum(axis=1)
    answers["log_likelihood"] = np.maximum(log_likelihoods[rows, labels], np.log(np.finfo(np.float32).tiny))
    answers["confidence"] = np.exp(log_likelihoods[rows, predicted])
    return answers


@dataclass(frozen=True)
class ClassScore:
    """How well one class is recognised; `support` is the number of its images."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Bin:
    """Images of which a model was about equally sure: their mean confidence, and the share that it had right."""

    confidence: float
    accuracy: float
    images: int


class Tally:
    """Counts of a split's answers; as large for a million images as for one.

    Attributes:
        confusion: Images by true class (row) and predicted class (column), int64.
    """

    def __init__(self, class_names: list[str]) -> None:
        self.class_names = class_names
        self.confusion = np.zeros((len(class_names), len(class_names)), np.int64)
        self._in_top = 0
        self._loss = np.zeros(2)  # sums of the losses and of their squares
        self._bins = np.zeros((BINS, 3))  # sums of the confidences, of the right answers, and of the images

    def add(self, answers: np.ndarray) -> None:
        """Counts some images, records of `ANSWER`."""
        np.add.at(self.confusion, (answers["label"], answers["predicted"]), 1)
        self._in_top += int(np.count_nonzero(answers["rank"] < TOP))
        losses = -answers["log_likelihood"].astype(np.float64)
        self._loss += losses.sum(), np.square(losses).sum()
        confidences = answers["confidence"].astype(np.float64)
        # A bin holds its upper end: whoever is wholly sure is in the last one.
        bins = np.clip(np.ceil(confidences * BINS).astype(int) - 1, 0, BINS - 1)
        right = answers["label"] == answers["predicted"]
        for column, values in enumerate((confidences, right, np.ones(len(answers)))):
            self._bins[:, column] += np.bincount(bins, values, BINS)

    @property
    def images(self) -> int:
        return int(self.confusion.sum())

    @property
    def wrong(self) -> int:
        return self.images - int(np.trace(self.confusion))

    def scores(self) -> SplitScores:
        """The split's scores with their intervals."""
        macro_f1, balanced = by_class(self.confusion)
        has_top = len(self.class_names) >= TOP_FROM_CLASSES
        return SplitScores(
            images=self.images,
            accuracy=share(self.images - self.wrong, self.images),
            macro_f1=macro_f1,
            balanced_accuracy=balanced,
            log_loss=mean(float(self._loss[0]), float(self._loss[1]), self.images),
            top5=share(self._in_top, self.images) if has_top else None,
            ece=sum(bin.images * abs(bin.confidence - bin.accuracy) for bin in self.bins()) / max(self.images, 1),
        )

    def bins(self) -> list[Bin]:
        """The bins of confidence that have images, the least sure first."""
        filled = self._bins[self._bins[:, 2] > 0]
        return [Bin(float(sure / images), float(right / images), int(images)) for sure, right, images in filled]

    def recalls(self) -> list[float | None]:
        """Of each class; None for one without images."""
        actual = self.confusion.sum(axis=1)
        return [float(self.confusion[i, i] / images) if images else None for i, images in enumerate(actual)]

    def classes(self) -> list[ClassScore]:
        """In the order of the class names; what cannot be told for lack of images is 0."""
        hits, actual, taken = np.diagonal(self.confusion), self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        precision, recall = hits / np.maximum(taken, 1), hits / np.maximum(actual, 1)
        f1 = 2 * hits / np.maximum(actual + taken, 1)
        return [
            ClassScore(name, float(precision[i]), float(recall[i]), float(f1[i]), int(actual[i]))
            for i, name in enumerate(self.class_names)
        ]
