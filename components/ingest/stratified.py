"""Chooses a share of examples class by class, so that what is held out has each class in its proportion."""

import numpy as np


def stratified_choice(labels: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Chooses a share of the examples of each class; a class of one example keeps it.

    Shares are rounded down, and what is then missing to the share of all goes to those classes that lost most by the
    rounding, so small classes are served in turn and the number chosen is that of the whole.

    Args:
        labels: int [n].
        share: From 0 to 1.
        random: Decides which examples of a class.

    Returns:
        Indices into `labels`, ascending.
    """
    if len(labels) == 0:
        return np.empty(0, np.int64)
    classes, of_class = np.unique(labels, return_inverse=True)
    sizes = np.bincount(of_class, minlength=len(classes))
    exact = sizes * share
    quotas = np.floor(exact).astype(np.int64)
    # The order of the classes must not decide between equal losses: the digits all lose the same.
    loss = exact - quotas
    by_loss = np.lexsort((random.permutation(len(classes)), -loss))
    missing = round(len(labels) * share) - int(quotas.sum())
    able = [index for index in by_loss if quotas[index] + 1 < sizes[index]]
    quotas[able[: max(0, missing)]] += 1
    shuffled = random.permutation(len(labels))
    grouped = shuffled[np.argsort(of_class[shuffled], kind="stable")]
    ends = np.cumsum(sizes)
    chosen = [grouped[end - size : end - size + quota] for end, size, quota in zip(ends, sizes, quotas, strict=True)]
    return np.sort(np.concatenate(chosen))
