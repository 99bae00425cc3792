"""Ranks models: by validation accuracy, then size, then validation loss. Test accuracy is shown, never used."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from components import html_report


class SelectOptions(BaseModel):
    """Parameters of select.

    Attributes:
        min_accuracy: Validation accuracy below which nothing is deployed.
    """

    model_config = ConfigDict(frozen=True)

    min_accuracy: float = Field(ge=0, le=1)


class Candidate(BaseModel):
    """One evaluated model.

    Attributes:
        name: The model variant.
        uri: Where the model lies.
        evaluation_uri: Where its metrics lie.
        dataset_uri: Where the data set lies on which it was trained.
        val_accuracy: What the ranking goes by.
        val_loss: Decides between models that are equal in accuracy and size.
        test_accuracy: For the reader.
        test_macro_f1: For the reader.
        parameters: Number of weights; of two equally accurate models the smaller one wins.
        bytes: Size of the served model.
        images_per_second: Speed of the training.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    uri: str
    evaluation_uri: str
    dataset_uri: str
    val_accuracy: float
    val_loss: float
    test_accuracy: float
    test_macro_f1: float
    parameters: int
    bytes: int
    images_per_second: float = 0.0


class Leaderboard(BaseModel):
    """The ranking and the decision.

    Attributes:
        candidates: The best first.
        min_accuracy: The gate.
    """

    candidates: list[Candidate]
    min_accuracy: float

    @property
    def best(self) -> Candidate:
        return self.candidates[0]

    @property
    def passed(self) -> bool:
        """Whether the best model is good enough to be deployed."""
        return self.best.val_accuracy >= self.min_accuracy

    @property
    def decision(self) -> str:
        reached = f"{self.best.name} is the best with a validation accuracy of {self.best.val_accuracy:.2%}"
        if self.passed:
            return f"{reached}."
        return f"{reached}, below the gate min_accuracy = {self.min_accuracy:.2%}: nothing is deployed."


def rank(candidates: Iterable[Candidate], options: SelectOptions) -> Leaderboard:
    """Orders the candidates; those that are equal in all three respects stay in the order given."""
    ordered = sorted(
        candidates, key=lambda candidate: (-candidate.val_accuracy, candidate.parameters, candidate.val_loss)
    )
    return Leaderboard(candidates=ordered, min_accuracy=options.min_accuracy)


def leaderboard_page(leaderboard: Leaderboard) -> str:
    """Renders the ranking as an HTML page."""
    columns = ["model", "validation accuracy", "test accuracy", "test macro F1", "parameters", "kilobytes", "images/s"]
    rows: list[list[Any]] = [
        [
            candidate.name,
            candidate.val_accuracy,
            candidate.test_accuracy,
            candidate.test_macro_f1,
            candidate.parameters,
            round(candidate.bytes / 1000),
            round(candidate.images_per_second),
        ]
        for candidate in leaderboard.candidates
    ]
    return html_report.page(
        "Leaderboard",
        leaderboard.decision,
        [
            html_report.Section(
                "Models",
                html_report.table(columns, rows, highlighted_row=0 if leaderboard.passed else None)
                + html_report.note(
                    "Ranked by validation accuracy, then by fewer parameters, then by validation loss. The "
                    "test split decides nothing: its "
                    "accuracy is what to expect of new images."
                ),
            )
        ],
    )
