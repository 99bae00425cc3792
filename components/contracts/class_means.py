"""Measures that are means over classes, from counts of images.

Apart from the measures themselves, which all options know: those load before a run has settled which NumPy it takes.
"""

import numpy as np


def macro_f1(hits: np.ndarray, actual: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes, along the last axis; a class that neither is nor is predicted counts as 0.

    Args:
        hits: Images of each class that were recognised.
        actual: Images of each class.
        predicted: Images that were taken for each class.
    """
    scores: np.ndarray = np.mean(2 * hits / np.maximum(actual + predicted, 1), axis=-1)
    return scores


def balanced_accuracy(hits: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Mean recall, along the last axis, of the classes that have images; arguments as for `macro_f1`."""
    recalls = hits / np.maximum(actual, 1)
    means: np.ndarray = recalls.sum(axis=-1) / np.maximum((actual > 0).sum(axis=-1), 1)
    return means
