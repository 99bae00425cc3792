"""From the artifacts that select is given to what it decides about, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_image_classification.components.contracts.evaluation import (
    NO_CHAMPION_FILE,
    Evaluation,
    NoChampion,
    read_answers,
)
from kfp_image_classification.components.contracts.model_card import read_model_card
from kfp_image_classification.components.contracts.selected_model import BEATEN_URI, SELECTED_URI
from kfp_image_classification.components.select.decision import Contender, Deployed
from kfp_image_classification.components.select.leaderboard import Candidate, Leaderboard


@dataclass(frozen=True)
class Selection:
    """The files to hand on, and what is said of them."""

    directory: Path
    metadata: dict[str, Any]


def contender_of(model: Any, evaluation: Any) -> Contender:
    """A new model.

    Args:
        model: Model artifact from train.
        evaluation: Metrics artifact from evaluate.

    Raises:
        InvalidInput: When evaluate did not leave the model's answers.
    """
    measured = Evaluation.read(Path(evaluation.path))
    candidate = Candidate(
        name=str(model.metadata.get("model_type", model.name)),
        uri=model.uri,
        evaluation_uri=evaluation.uri,
        dataset_uri=str(model.metadata.get("dataset_uri", "")),
        validation=measured.splits["validation"],
        test=measured.splits["test"],
        parameters=measured.parameters,
        bytes=measured.bytes,
        answer_seconds=measured.answer_seconds,
        images_per_second=float(model.metadata.get("images_per_second", 0)),
        dataset_fingerprint=str(model.metadata.get("dataset_fingerprint", "")),
    )
    return Contender(candidate, measured, read_answers(Path(evaluation.path), "validation"))


def deployed_of(metrics: Any) -> Deployed | NoChampion | None:
    """The deployed model.

    Args:
        metrics: Metrics artifact from measure_champion; None without one.

    Raises:
        InvalidInput: When it holds neither a measurement nor a note why there is none.
    """
    if metrics is None:
        return None
    none = NoChampion.read(Path(metrics.path, NO_CHAMPION_FILE))
    return none or Deployed(Evaluation.read(Path(metrics.path)), read_answers(Path(metrics.path), "validation"))


def selection_of(ranking: Leaderboard, models: Sequence[Any]) -> Selection:
    """What select hands on: the best new model or, where it is served anew, the deployed one.

    Args:
        ranking: The decision.
        models: The Model artifacts from train.
    """
    if ranking.serves_champion and ranking.champion:
        directory = Path(ranking.champion.uri)
        card = read_model_card(directory)
        metadata = {
            SELECTED_URI: ranking.champion.uri,
            BEATEN_URI: ranking.best.uri,
            "val_accuracy": ranking.champion.validation.accuracy.value,
            **card.model_dump(
                include={"model_type", "run", "dataset", "dataset_fingerprint", "dataset_images", "git_revision"},
                exclude_none=True,  # KFP refuses metadata without a value
            ),
        }
        return Selection(directory, metadata)
    winner = next(model for model in models if model.uri == ranking.best.uri)
    metadata = {
        **winner.metadata,
        SELECTED_URI: winner.uri,
        "val_accuracy": ranking.best.val_accuracy,
        "test_accuracy": ranking.best.test_accuracy,
    }
    return Selection(Path(winner.path), metadata)
