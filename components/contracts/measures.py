"""What a model can be judged by, and what evaluate found: the numbers of a split, each with its interval."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

MeasureName = Literal["accuracy", "macro_f1", "balanced_accuracy", "log_loss", "top5"]

TITLES: dict[MeasureName, str] = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
    "log_loss": "log loss",
    "top5": "top-5 accuracy",
}
# How sure an interval is to hold the score that endless images of this kind would give.
CONFIDENCE = 0.95
TOP = 5
# With fewer classes, the five most likely ones say little.
TOP_FROM_CLASSES = 11


class Score(BaseModel):
    """A number that was measured on some images, and the 95 % interval for what more images would show."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float


class SplitScores(BaseModel):
    """How good a model is on one split.

    Attributes:
        images: Number of images.
        accuracy: Share of images whose most likely class is the true one.
        macro_f1: Mean F1 of the classes, each counting the same.
        balanced_accuracy: Mean recall of the classes that have images.
        log_loss: Mean cross-entropy, in nats.
        top5: Share of images whose true class is among the five most likely; None for up to ten classes.
        ece: Expected calibration error: how far confidence and accuracy lie apart, over 15 bins of confidence.
    """

    model_config = ConfigDict(frozen=True)

    images: int
    accuracy: Score
    macro_f1: Score
    balanced_accuracy: Score
    log_loss: Score
    top5: Score | None = None
    ece: float

    def measured(self) -> dict[MeasureName, Score]:
        """The scores by their names, without top-5 accuracy where it says nothing."""
        scores = {name: getattr(self, name) for name in TITLES}
        return {name: score for name, score in scores.items() if score is not None}


def lower_is_better(measure: MeasureName) -> bool:
    return measure == "log_loss"


def number_words(measure: MeasureName, value: float) -> str:
    """A score as people read it."""
    return f"{value:.4f}" if measure == "log_loss" else f"{value:.2%}"


def score_words(measure: MeasureName, score: Score) -> str:
    """A score with its interval, as people read it."""
    if measure == "log_loss":
        return f"{score.value:.4f} ({score.low:.3f} to {score.high:.3f})"
    return f"{score.value:.2%} ({100 * score.low:.1f} to {100 * score.high:.1f})"
