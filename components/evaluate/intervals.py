"""How far a score may lie from what endless images of the same kind would give: 95 % intervals."""

import numpy as np
from scipy import stats

from kfp_image_classification.components.contracts.class_means import balanced_accuracy, macro_f1
from kfp_image_classification.components.contracts.measures import CONFIDENCE, Score

RESAMPLES = 2000
SEED = 0


def share(hits: int, images: int) -> Score:
    """A share of images, with Wilson's interval, which holds for few images and near 0 and 1 as well."""
    if not images:
        return Score(value=0.0, low=0.0, high=1.0)
    interval = stats.binomtest(hits, images).proportion_ci(CONFIDENCE, method="wilson")
    return Score(value=hits / images, low=float(interval.low), high=float(interval.high))


def mean(total: float, total_of_squares: float, images: int) -> Score:
    """A mean over images, with Student's interval.

    Args:
        total: Sum of the images' values.
        total_of_squares: Sum of their squares.
        images: Their number.
    """
    value = total / max(images, 1)
    if images < 2:
        return Score(value=value, low=value, high=value)
    variance = max(0.0, (total_of_squares - images * value**2) / (images - 1))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, images - 1)) * (variance / images) ** 0.5
    return Score(value=value, low=value - reach, high=value + reach)


def by_class(confusion: np.ndarray) -> tuple[Score, Score]:
    """Macro F1 and balanced accuracy, with bootstrap percentile intervals.

    To draw images anew is to draw the cells of their confusion matrix anew: it takes no image, and so no memory for
    any.

    Args:
        confusion: Images by true class (row) and predicted class (column).
    """
    images, classes = int(confusion.sum()), len(confusion)
    true, taken = np.nonzero(confusion)
    counts = confusion[true, taken]

    def both(counts: np.ndarray) -> tuple[float, float]:
        actual, predicted = np.bincount(true, counts, classes), np.bincount(taken, counts, classes)
        hits = np.bincount(true, np.where(true == taken, counts, 0), classes)
        return float(macro_f1(hits, actual, predicted)), float(balanced_accuracy(hits, actual))

    if not images:
        return Score(value=0.0, low=0.0, high=1.0), Score(value=0.0, low=0.0, high=1.0)
    drawn = np.random.default_rng(SEED)
    resampled = [both(drawn.multinomial(images, counts / images)) for _ in range(RESAMPLES)]
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    f1, recall = (
        Score(value=value, low=float(below), high=float(above))
        for value, below, above in zip(both(counts), low, high, strict=True)
    )
    return f1, recall
