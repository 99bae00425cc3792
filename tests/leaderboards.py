"""Leaderboards as select writes them, for tests of what reads them."""

from typing import Any

from kfp_image_classification.components.contracts.measures import Score, SplitScores
from kfp_image_classification.components.select.leaderboard import Candidate, Leaderboard


def scores(accuracy: float) -> SplitScores:
    score = Score(value=accuracy, low=accuracy - 0.02, high=accuracy + 0.01)
    loss = Score(value=0.1, low=0.05, high=0.15)
    return SplitScores(images=400, accuracy=score, macro_f1=score, balanced_accuracy=score, log_loss=loss, ece=0.01)


def candidate(name: str, accuracy: float = 0.9, test_accuracy: float = 0.9) -> Candidate:
    return Candidate(
        name=name,
        uri="",
        evaluation_uri="",
        dataset_uri="",
        validation=scores(accuracy),
        test=scores(test_accuracy),
        parameters=93322,
        bytes=400000,
    )


def ranking(*candidates: Candidate) -> dict[str, Any]:
    """The metadata of a leaderboard whose first model passed."""
    decision = f"{candidates[0].name} is selected."
    board = Leaderboard(candidates=list(candidates), gate=0.5, passed=True, decision=decision)
    return board.model_dump(exclude_none=True)
