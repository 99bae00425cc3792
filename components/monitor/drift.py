"""Whether what was seen lately differs from what the model knows: by more than chance, and by enough to matter.

Both are needed. With many images chance explains nothing any more, and a difference of no importance would raise an
alarm; with few, the index alone is large by chance. So something has drifted when its population stability index is at
the threshold or above, and a chi-square test says that chance does not make such differences. And nothing is said from
too few images: as many are needed as find a drift of that size nine times in ten.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize, stats

Verdict = Literal["drift", "steady", "too few"]

# Shared by the comparisons of a look, so that a look without any drift raises an alarm one time in a hundred.
FALSE_ALARMS = 0.01
POWER = 0.9
# A range with a smaller share of the reference is put together with its neighbour.
LEAST_SHARE = 0.03
MOST_CLASSES = 20
# Where the probability of a good model's answers lies is told by the last percents.
CONFIDENCE_EDGES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999, 1.0)


@dataclass(frozen=True)
class Sample:
    """Counts of the same things in two places.

    Attributes:
        name: What was counted.
        reference: What the model knows, by range or class.
        lately: What was seen lately.
        is_ordered: Whether neighbours are alike.
    """

    name: str
    reference: np.ndarray
    lately: np.ndarray
    is_ordered: bool


@dataclass(frozen=True)
class Comparison:
    """How far two samples lie apart.

    Attributes:
        name: What was compared.
        index: Population stability index.
        p_value: How often chance makes such a difference, or a larger one.
        images: Images seen lately.
        needed: Images that it takes; None where the reference itself is too small for any number.
        verdict: What follows.
    """

    name: str
    index: float
    p_value: float
    images: int
    needed: int | None
    verdict: Verdict


def confidence_counts(confidences: Sequence[float] | np.ndarray) -> np.ndarray:
    """How many lie in each range between two of `CONFIDENCE_EDGES`."""
    return np.histogram(np.clip(confidences, 0, 1), CONFIDENCE_EDGES)[0]


def compared(samples: Sequence[Sample], threshold: float) -> list[Comparison]:
    """Compares each.

    Args:
        samples: What was counted.
        threshold: The index from which on something has drifted.
    """
    return [_compare(sample, threshold, FALSE_ALARMS / len(samples)) for sample in samples]


def _compare(sample: Sample, threshold: float, level: float) -> Comparison:
    reference, lately = _merged(sample)
    images, freedom = int(lately.sum()), len(reference) - 1
    needed = images_needed(int(reference.sum()), freedom, threshold, level)
    index, p_value = population_stability(reference, lately), _p_value(reference, lately)
    verdict: Verdict = "steady"
    if needed is None or images < needed:
        verdict = "too few"
    elif index >= threshold and p_value < level:
        verdict = "drift"
    return Comparison(sample.name, index, p_value, images, needed, verdict)


def population_stability(reference: np.ndarray, lately: np.ndarray) -> float:
    """The index, the sum of (p - q) ln(p / q) over all parts, with half an image more in each: none is empty."""
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (reference, lately))
    return float(np.sum((p - q) * np.log(p / q)))


def images_needed(reference: int, freedom: int, threshold: float, level: float) -> int | None:
    """How many images it takes to find a drift of the threshold's size nine times in ten.

    Where p and q are close, the statistic of the chi-square test of two samples of m and n is about m n / (m + n) times
    their index; under a drift it has the noncentral distribution of that centre.

    Args:
        reference: Images that the model knows.
        freedom: Parts less one.
        threshold: The index.
        level: How often an alarm may be false.

    Returns:
        The number; None when the reference is so small that no number is enough.
    """
    if not reference or freedom < 1:
        return None
    critical = stats.chi2.isf(level, freedom)
    centre = optimize.brentq(
        lambda centre: stats.ncx2.sf(critical, freedom, centre) - POWER, 1e-3, 100 * critical + 1000
    )
    if threshold * reference <= centre:
        return None
    return int(np.ceil(centre * reference / (threshold * reference - centre)))


def _p_value(reference: np.ndarray, lately: np.ndarray) -> float:
    table = np.array([reference, lately])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2 or not reference.sum() or not lately.sum():
        return 1.0
    return float(stats.chi2_contingency(table, correction=False).pvalue)


def _merged(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    groups = _neighbours(sample.reference) if sample.is_ordered else _frequent(sample.reference)
    if len(groups) == 1:  # all that the model knows is alike: it is that, or something else
        known = sample.reference > 0
        groups = [np.flatnonzero(known), np.flatnonzero(~known)]
    reference = np.array([sample.reference[group].sum() for group in groups])
    return reference, np.array([sample.lately[group].sum() for group in groups])


def _neighbours(reference: np.ndarray) -> list[np.ndarray]:
    least = LEAST_SHARE * reference.sum()
    groups: list[list[int]] = [[]]
    for part in range(len(reference)):
        groups[-1].append(part)
        if reference[groups[-1]].sum() > least and reference[part + 1 :].sum() > least:
            groups.append([])
    return [np.array(group) for group in groups]


def _frequent(reference: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(-reference, kind="stable")
    groups = [np.array([part]) for part in order[:MOST_CLASSES]]
    return [*groups, order[MOST_CLASSES:]] if len(order) > MOST_CLASSES else groups
