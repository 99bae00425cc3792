"""Evaluations as evaluate writes them, of models that are wrong about chosen images."""

from pathlib import Path
from typing import Any

import numpy as np

from kfp_image_classification.components.contracts.evaluation import ANSWER, Evaluation, answers_written
from kfp_image_classification.components.contracts.measures import Score, SplitScores

IMAGES = 400
CLASSES = ["cat", "dog"]


def answers_with(wrong: list[int] | range, images: int = IMAGES) -> np.ndarray:
    """Answers that are wrong for these images, of two classes that take turns."""
    answers = np.zeros(images, ANSWER)
    answers["label"] = np.arange(images) % 2
    answers["predicted"] = answers["label"]
    answers["predicted"][list(wrong)] ^= 1
    answers["rank"] = answers["label"] != answers["predicted"]
    answers["log_likelihood"] = np.where(answers["rank"] == 0, -0.05, -3)
    answers["confidence"] = 0.95
    return answers


def evaluation_of(name: str, answers: np.ndarray, parameters: int, milliseconds: float, **more: Any) -> Evaluation:
    right = answers["label"] == answers["predicted"]
    recalls = [float(right[answers["label"] == label].mean()) for label in range(len(CLASSES))]

    def score(value: float) -> Score:
        return Score(value=float(value), low=float(value) - 0.02, high=float(value) + 0.02)

    scores = SplitScores(
        images=len(answers),
        accuracy=score(right.mean()),
        macro_f1=score(right.mean()),
        balanced_accuracy=score(np.mean(recalls)),
        log_loss=score(-answers["log_likelihood"].astype(float).mean()),
        ece=0.01,
    )
    values = {
        "model_type": name,
        "run": "r1",
        "uri": f"/{name}",
        "parameters": parameters,
        "bytes": 1000,
        "image_shape": (28, 28, 1),
        "trained_on": "f1",
        "measured_on": "f1",
        "class_names": CLASSES,
        "answer_seconds": milliseconds / 1000,
        "splits": {"validation": scores, "test": scores},
        "recalls": recalls,
    }
    return Evaluation.model_validate({**values, **more})


def write_evaluation(folder: Path, name: str, wrong: list[int] | range, **more: Any) -> None:
    """Fills the folder of a Metrics artifact."""
    folder.mkdir(parents=True)
    answers = answers_with(wrong)
    evaluation_of(name, answers, 10, 1.0, **more).write(folder)
    with answers_written(folder, "validation", len(answers)) as write:
        write(answers)
