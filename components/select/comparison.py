"""Whether two models that answered the same images differ by more than chance."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats

from kfp_image_classification.components.contracts.class_means import balanced_accuracy, macro_f1
from kfp_image_classification.components.contracts.measures import TOP, MeasureName

# Chance alone is to look like a difference once in so many decisions.
LEVEL = 0.05
PERMUTATIONS = 2000
BATCH = 100  # permutations in memory
SEED = 0


@dataclass(frozen=True)
class Difference:
    """What sets a model apart from another one.

    Attributes:
        better: By how much its score is the better one; negative when it is worse.
        p_value: How likely chance alone makes a difference as large, in either direction.
    """

    better: float
    p_value: float

    def beyond_chance(self, comparisons: int) -> bool:
        """Whether chance is too unlikely, where several comparisons are made at once (Bonferroni)."""
        return self.p_value < LEVEL / comparisons

    def is_better(self, comparisons: int) -> bool:
        """Whether the first model is the better one, and not by chance."""
        return self.better > 0 and self.beyond_chance(comparisons)


def difference(first: np.ndarray, second: np.ndarray, measure: MeasureName, classes: int) -> Difference:
    """Compares two models on the same images.

    Right and wrong answers are compared with McNemar's exact test, log losses with the paired t-test. For scores that
    are not a mean over images, a permutation test exchanges the models' answers image by image.

    Args:
        first: Its answers, records of `components.contracts.evaluation.ANSWER`.
        second: The other one's, for the same images in the same order.
        measure: The score.
        classes: Number of classes.
    """
    if measure == "accuracy":
        return _mcnemar(first["label"] == first["predicted"], second["label"] == second["predicted"])
    if measure == "top5":
        return _mcnemar(first["rank"] < TOP, second["rank"] < TOP)
    if measure == "log_loss":
        return _paired_t(first["log_likelihood"].astype(float), second["log_likelihood"].astype(float))
    return _permutation(first, second, measure, classes)


def _mcnemar(first: np.ndarray, second: np.ndarray) -> Difference:
    ours, theirs = int(np.count_nonzero(first & ~second)), int(np.count_nonzero(second & ~first))
    better = (ours - theirs) / max(len(first), 1)
    if ours + theirs == 0:
        return Difference(better, 1.0)
    return Difference(better, float(stats.binomtest(ours, ours + theirs).pvalue))


def _paired_t(first: np.ndarray, second: np.ndarray) -> Difference:
    differences = first - second
    better = float(differences.mean()) if len(differences) else 0.0
    if len(differences) < 2 or not np.any(differences):
        return Difference(better, 1.0)
    if np.ptp(differences) == 0:  # no spread, no chance
        return Difference(better, 0.0)
    return Difference(better, float(stats.ttest_rel(first, second).pvalue))


def _permutation(first: np.ndarray, second: np.ndarray, measure: MeasureName, classes: int) -> Difference:
    """Draws how many of the images with the same label and the same two answers exchange them: all at once."""
    labels, ours, theirs = first["label"], first["predicted"], second["predicted"]
    differ = ours != theirs
    if not differ.any():
        return Difference(0.0, 1.0)
    actual = np.bincount(labels, minlength=classes)
    same = labels[~differ], ours[~differ]
    hits_of_both = np.bincount(same[0][same[0] == same[1]], minlength=classes)
    taken_of_both = np.bincount(same[1], minlength=classes)
    cells, images = np.unique(np.stack([labels, ours, theirs])[:, differ], axis=1, return_counts=True)
    label, our, their = (_indicators(column, classes) for column in cells)
    our_hits, their_hits = label.multiply(our).tocsr(), label.multiply(their).tocsr()

    def score(kept: np.ndarray) -> np.ndarray:
        exchanged = images - kept
        hits = hits_of_both + kept @ our_hits + exchanged @ their_hits
        if measure == "balanced_accuracy":
            return balanced_accuracy(hits, actual)
        return macro_f1(hits, actual, taken_of_both + kept @ our + exchanged @ their)

    drawn = np.random.default_rng(SEED)
    test = stats.monte_carlo_test(
        images,
        rvs=lambda size: drawn.binomial(images, 0.5, size),
        statistic=lambda kept, axis: score(kept) - score(images - kept),
        n_resamples=PERMUTATIONS,
        batch=BATCH,
        vectorized=True,
    )
    return Difference(float(test.statistic), float(test.pvalue))


def _indicators(classes_of_cells: np.ndarray, classes: int) -> sparse.csr_array:
    """1 where a cell (row) is of a class (column)."""
    cells = len(classes_of_cells)
    return sparse.csr_array((np.ones(cells), (np.arange(cells), classes_of_cells)), shape=(cells, classes))
