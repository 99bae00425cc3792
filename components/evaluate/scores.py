"""From predictions to numbers."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from kfp_image_classification.components.evaluate.predictions import Predictions


@dataclass(frozen=True)
class ClassScore:
    """How well one class is recognised; `support` is the number of its images."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Scores:
    """How good a model is on one split.

    Attributes:
        accuracy: Share of images whose most likely class is the true one.
        loss: Mean cross-entropy, in nats.
        macro_f1: Mean F1 of the classes, each counting the same.
        confusion: Images by true class (row) and predicted class (column), int64.
        classes: In the order of the class names.
    """

    accuracy: float
    loss: float
    macro_f1: float
    confusion: np.ndarray
    classes: list[ClassScore]


def score(predictions: Predictions, class_names: list[str]) -> Scores:
    """Scores the predictions of a split."""
    labels, predicted = predictions.labels, predictions.classes
    every_class = list(range(len(class_names)))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=every_class, zero_division=0.0
    )
    likelihood = predictions.probabilities[np.arange(len(labels)), labels]
    return Scores(
        accuracy=float(np.mean(labels == predicted)),
        loss=float(-np.log(np.maximum(likelihood, np.finfo(np.float32).tiny)).mean()),
        macro_f1=float(np.mean(f1)),
        confusion=confusion_matrix(labels, predicted, labels=every_class),
        classes=[
            ClassScore(name, float(precision[i]), float(recall[i]), float(f1[i]), int(support[i]))
            for i, name in enumerate(class_names)
        ],
    )
