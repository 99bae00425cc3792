"""What select decided, and the page that shows it. Needs no statistics: runners and clients read it as well."""

from typing import Any

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict

from kfp_image_classification.components.contracts.measures import (
    TITLES,
    MeasureName,
    SplitScores,
    score_words,
)
from kfp_image_classification.components.report import html_report

NONE = html_report.Figure("-")
RULE = (
    "Models whose difference on the same validation images is within chance count as equal: of these the one with "
    "fewer parameters is taken, then the one that answers faster by a quarter or more, then the better one. The test "
    "split decides nothing: its scores are what to expect of new images. In brackets the 95% interval; p is how likely "
    "chance alone makes such a difference."
)


class Candidate(BaseModel):
    """One evaluated model.

    Attributes:
        name: The model variant.
        uri: Where the model lies.
        evaluation_uri: Where its metrics lie.
        dataset_uri: Where the data set lies on which it was trained.
        validation: What the decision goes by.
        test: For the reader.
        parameters: Number of weights.
        bytes: Size of the served model.
        answer_seconds: What the exported model takes for one image, at best.
        images_per_second: Speed of the training.
        dataset_fingerprint: Identifies the data set's content.
        missed: The gate or floors that it does not reach, in words.
        against_best: How it compares with the model of the best score, in words.
        against_champion: How it compares with the deployed model, in words.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    uri: str
    evaluation_uri: str
    dataset_uri: str
    validation: SplitScores
    test: SplitScores
    parameters: int
    bytes: int
    answer_seconds: float = 0.0
    images_per_second: float = 0.0
    dataset_fingerprint: str = ""
    missed: list[str] = []
    against_best: str = ""
    against_champion: str = ""

    @property
    def val_accuracy(self) -> float:
        return self.validation.accuracy.value

    @property
    def test_accuracy(self) -> float:
        return self.test.accuracy.value


class Champion(BaseModel):
    """The model that is deployed now.

    Attributes:
        name: The model variant, and the run that made it.
        uri: Where its files lie.
        validation: Its scores on the validation images of today.
        parameters: Number of weights.
        stays: Whether no new model beat it by more than chance.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    uri: str
    validation: SplitScores
    parameters: int
    stays: bool


class Leaderboard(BaseModel):
    """The ranking and the decision.

    Attributes:
        candidates: The one that was selected first, then by score.
        select_by: What they are compared by.
        gate: What had to be reached in that.
        champion: The deployed model; None where there is none, or none that could be measured.
        passed: Whether the first one is to be deployed.
        serves_champion: Whether the deployed model is to be served anew.
        decision: What was decided, and why.
    """

    candidates: list[Candidate]
    select_by: MeasureName = "accuracy"
    gate: float
    champion: Champion | None = None
    passed: bool
    serves_champion: bool = False
    decision: str

    @property
    def best(self) -> Candidate:
        return self.candidates[0]


def words_of(measure: MeasureName, scores: SplitScores) -> html_report.Figure:
    """A score with its interval; a dash where it was not measured."""
    score = scores.measured().get(measure)
    return html_report.Figure(score_words(measure, score)) if score else NONE


def leaderboard_page(leaderboard: Leaderboard) -> str:
    """Renders the ranking as an HTML page."""
    by = leaderboard.select_by
    extra: list[MeasureName] = [] if by == "accuracy" else [by]
    columns = [
        "model",
        *(f"validation {TITLES[name]}" for name in extra),
        "validation accuracy",
        "test accuracy",
        "parameters",
        "ms an image",
        "images/s",
        "kilobytes",
        "test macro F1",
    ]
    rows: list[list[Any]] = [
        [
            candidate.name,
            *(words_of(name, candidate.validation) for name in extra),
            words_of("accuracy", candidate.validation),
            words_of("accuracy", candidate.test),
            candidate.parameters,
            html_report.Figure(f"{1000 * candidate.answer_seconds:.2f}"),
            round(candidate.images_per_second),
            round(candidate.bytes / 1000),
            words_of("macro_f1", candidate.test),
        ]
        for candidate in leaderboard.candidates
    ]
    if champion := leaderboard.champion:
        scores = [words_of(name, champion.validation) for name in (*extra, "accuracy")]
        rows.append([f"deployed: {champion.name}", *scores, NONE, champion.parameters, NONE, NONE, NONE, NONE])
    return html_report.page(
        "Leaderboard",
        f"Models by their validation {TITLES[by]}",
        [
            html_report.Section(
                "Models",
                html_report.table(columns, rows, highlighted_row=0 if leaderboard.passed else None)
                + _comparisons(leaderboard)
                + html_report.note(f"Compared by validation {TITLES[by]}. {RULE}"),
            )
        ],
        html_report.banner("good" if leaderboard.passed else "warn", leaderboard.decision),
    )


def _comparisons(leaderboard: Leaderboard) -> Markup:
    """How each model compares; nothing for a lone model that reaches the gate."""
    rows = [
        [one.name, one.against_best or "-", one.against_champion or "-", ", ".join(one.missed) or "reached"]
        for one in leaderboard.candidates
    ]
    columns = ["model", "with the best score", "with the deployed model", "gate and floors"]
    if all(row[1:] == ["-", "-", "reached"] for row in rows):
        return Markup("")
    return html_report.subheading("Compared on the same images") + html_report.table(columns, rows)
