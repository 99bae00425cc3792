"""Which model is selected, and whether it is to be deployed: differences that chance explains decide nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kfp_image_classification.components.contracts.evaluation import Evaluation, NoChampion
from kfp_image_classification.components.contracts.measures import lower_is_better, number_words
from kfp_image_classification.components.select.comparison import Difference, difference
from kfp_image_classification.components.select.leaderboard import Candidate
from kfp_image_classification.components.select.options import EVERY_CLASS, SelectOptions, check_classes
from kfp_image_classification.components.step.errors import InvalidInput

# Times are measured on machines that do other things, too: within a quarter they are the same.
AS_FAST = 1.25
MOST_FLOORS_TOLD = 3


@dataclass(frozen=True)
class Contender:
    """A new model, with its answers for the validation images, records of `ANSWER`."""

    candidate: Candidate
    evaluation: Evaluation
    answers: np.ndarray

    @property
    def uri(self) -> str:
        return self.candidate.uri


@dataclass(frozen=True)
class Deployed:
    """The deployed model, measured on the same images."""

    evaluation: Evaluation
    answers: np.ndarray


@dataclass(frozen=True)
class Decision:
    """What was decided, and by what.

    Attributes:
        ranked: All new models: the selected one first, then by score.
        best: The one with the best score of those that were looked at.
        rule: What sets the selected one apart from the best; empty where they are the same.
        missed: The gate or floors that a model does not reach, by its URI, in words that follow `is`.
        with_best: What sets a model apart from the best, by its URI.
        with_champion: What sets a model apart from the deployed one, by its URI; empty without one.
        champion: The deployed model; None without one that could be measured.
        champion_missed: The gate or floors that it does not reach.
        passed: Whether the selected model is to be deployed.
        serves_champion: Whether the deployed model is to be served anew.
    """

    ranked: list[Contender]
    best: Contender
    rule: str
    missed: Mapping[str, list[str]]
    with_best: Mapping[str, Difference]
    with_champion: Mapping[str, Difference]
    champion: Deployed | None
    champion_missed: list[str]
    passed: bool
    serves_champion: bool

    @property
    def selected(self) -> Contender:
        return self.ranked[0]

    def is_equal(self, one: Contender) -> bool:
        """Whether chance explains what sets a model apart from the best one."""
        return not self.with_best[one.uri].beyond_chance(comparisons_with_best(len(self.ranked)))

    def beats_champion(self, one: Contender) -> bool:
        return _beats(one, self.with_champion, len(self.ranked))


def decide(
    contenders: Sequence[Contender], options: SelectOptions, deployed: Deployed | NoChampion | None = None
) -> Decision:
    """Selects a model and says whether to deploy it.

    To be deployed, a model has to pass the gate and the floors, and to beat the deployed one by more than chance. Of
    those that do (of all, where none does) the best score and its equals are looked at.

    Args:
        contenders: The new models, at least one.
        options: The measure, the gate and the floors.
        deployed: The champion, or why there is none to compare with.

    Raises:
        InvalidInput: When the models did not answer the same images, or the options do not fit the classes.
    """
    champion = deployed if isinstance(deployed, Deployed) else None
    _check([*contenders, *([champion] if champion else [])], options)
    missed = {one.uri: missed_by(one.evaluation, options) for one in contenders}
    with_champion = {one.uri: _difference(one, champion, options) for one in contenders} if champion else {}
    ordered = sorted(contenders, key=lambda one: _rank(one, options))
    passing = [one for one in ordered if not missed[one.uri]]
    beating = [one for one in passing if _beats(one, with_champion, len(contenders))]
    among = beating or passing or ordered
    best, comparisons = among[0], comparisons_with_best(len(contenders))
    with_best = {one.uri: _difference(one, best, options) for one in contenders}
    selected, rule = _first_of_equals([one for one in among if not with_best[one.uri].beyond_chance(comparisons)])
    passed = bool(beating) and not (isinstance(deployed, NoChampion) and deployed.holds_back)
    champion_missed = missed_by(champion.evaluation, options) if champion else []
    return Decision(
        ranked=[selected, *(one for one in ordered if one is not selected)],
        best=best,
        rule="" if selected is best else rule,
        missed=missed,
        with_best=with_best,
        with_champion=with_champion,
        champion=champion,
        champion_missed=champion_missed,
        passed=passed,
        serves_champion=bool(champion) and not passed and not champion_missed and not options.to_cluster,
    )


def comparisons_with_best(contenders: int) -> int:
    """With how many others the best one is compared; they share what may be chance."""
    return max(1, contenders - 1)


def missed_by(evaluation: Evaluation, options: SelectOptions) -> list[str]:
    """The gate or floors that a model does not reach, in words that follow `is`."""
    by, value = options.select_by, score_of(evaluation, options)
    missed = []
    if lower_is_better(by) and value > options.gate:
        missed.append(f"above the gate = {number_words(by, options.gate)}")
    elif not lower_is_better(by) and value < options.gate:
        missed.append(f"below the gate = {number_words(by, options.gate)}")
    floors = [
        f"{name} ({recall:.1%} of its images, floor {floor:.1%})"
        for name, recall in zip(evaluation.class_names, evaluation.recalls, strict=True)
        if recall is not None and recall < (floor := _floor(name, options))
    ]
    if floors:
        more = f" and {len(floors) - MOST_FLOORS_TOLD} more" if len(floors) > MOST_FLOORS_TOLD else ""
        missed.append(f"below min_recall for {', '.join(floors[:MOST_FLOORS_TOLD])}{more}")
    return missed


def score_of(evaluation: Evaluation, options: SelectOptions) -> float:
    """What a model is selected by."""
    return evaluation.splits["validation"].measured()[options.select_by].value


def _difference(first: Contender, second: Contender | Deployed, options: SelectOptions) -> Difference:
    return difference(first.answers, second.answers, options.select_by, len(first.evaluation.class_names))


def _beats(one: Contender, with_champion: Mapping[str, Difference], contenders: int) -> bool:
    # Any of the new models may beat the champion: each has a chance of its own to look better than it is.
    return not with_champion or with_champion[one.uri].is_better(comparisons=contenders)


def _rank(one: Contender, options: SelectOptions) -> tuple[float, int]:
    """The best score first, of the same score the fewest parameters."""
    value = score_of(one.evaluation, options)
    return (value if lower_is_better(options.select_by) else -value, one.candidate.parameters)


def _first_of_equals(equals: Sequence[Contender]) -> tuple[Contender, str]:
    """The one with the fewest parameters, of these the fastest, of these the one with the best score.

    Args:
        equals: The best score first.

    Returns:
        It, and what sets it apart.
    """
    fewest = min(one.candidate.parameters for one in equals)
    small = [one for one in equals if one.candidate.parameters == fewest]
    fastest = min(one.candidate.answer_seconds for one in small)
    fast = [one for one in small if one.candidate.answer_seconds <= AS_FAST * fastest]
    return fast[0], "has fewer parameters" if len(small) < len(equals) else "is faster"


def _floor(name: str, options: SelectOptions) -> float:
    return options.min_recall.get(name, options.min_recall.get(EVERY_CLASS, 0.0))


def _check(met: Sequence[Contender | Deployed], options: SelectOptions) -> None:
    first = met[0]
    check_classes(options, first.evaluation.class_names)
    for one in met[1:]:
        same = (one.evaluation.measured_on, one.evaluation.class_names) == (
            first.evaluation.measured_on,
            first.evaluation.class_names,
        )
        if not same or not np.array_equal(one.answers["label"], first.answers["label"]):
            raise InvalidInput("evaluations: were not made on the same images; evaluate all models on one data set")
