"""Which model is selected, and whether it is to be deployed: differences that chance explains decide nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kfp_image_classification.components.contracts.evaluation import Evaluation, NoChampion
from kfp_image_classification.components.contracts.measures import (
    TITLES,
    TOP_FROM_CLASSES,
    lower_is_better,
    number_words,
    score_words,
)
from kfp_image_classification.components.select.comparison import Difference, difference
from kfp_image_classification.components.select.leaderboard import Candidate, Champion, Leaderboard
from kfp_image_classification.components.select.options import EVERY_CLASS, SelectOptions
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


@dataclass(frozen=True)
class Deployed:
    """The deployed model, measured on the same images."""

    evaluation: Evaluation
    answers: np.ndarray


def decide(
    contenders: Sequence[Contender], options: SelectOptions, deployed: Deployed | NoChampion | None = None
) -> Leaderboard:
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
    _check(contenders, options, deployed)
    contest = _Contest(options, len(contenders), len(contenders[0].evaluation.class_names))
    missed = {contender.candidate.uri: _missed(contender.evaluation, options) for contender in contenders}
    passing = [contender for contender in contenders if not missed[contender.candidate.uri]]
    champion = deployed if isinstance(deployed, Deployed) else None
    against_champion: dict[str, Difference] = {}
    if champion:
        against_champion = {one.candidate.uri: contest.difference(one, champion) for one in contenders}
    # Any of the new models may beat the champion: each has a chance of its own to look better than it is.
    beating = [
        one
        for one in passing
        if not against_champion or against_champion[one.candidate.uri].is_better(comparisons=len(contenders))
    ]
    among = sorted(beating or passing or contenders, key=contest.rank)
    best, others = among[0], max(1, len(contenders) - 1)
    against_best = {one.candidate.uri: contest.difference(one, best) for one in contenders}
    equals = [one for one in among if not against_best[one.candidate.uri].beyond_chance(others)]
    selected, rule = _first_of_equals(equals)

    held_back = isinstance(deployed, NoChampion) and deployed.holds_back
    passed = bool(beating) and not held_back
    champion_missed = _missed(champion.evaluation, options) if champion else []
    stays = champion is not None and not passed
    serves_champion = stays and not options.to_cluster and not champion_missed
    ranked = [selected, *(one for one in sorted(contenders, key=contest.rank) if one is not selected)]
    sentences = [contest.selection(selected, best, against_best[selected.candidate.uri], rule)]
    if not passing:
        nothing = "no new model" if serves_champion else "nothing"
        sentences.append(f"It is {_listed(missed[selected.candidate.uri])}: {nothing} is deployed.")
    elif champion:
        found = against_champion[selected.candidate.uri]
        sentences.append(contest.meeting(selected, champion, found, passed))
    elif isinstance(deployed, NoChampion) and deployed.reason:
        sentences.append(
            f"The deployed model could not be compared on these images: {deployed.reason}."
            + (" Nothing is deployed. force = true deploys all the same." if held_back else "")
        )
    if serves_champion:
        sentences.append("The model that was served last is served again.")
    elif stays and not options.to_cluster and passing:
        sentences.append(f"It is {_listed(champion_missed)} itself: nothing is served.")
    return Leaderboard(
        candidates=[
            one.candidate.model_copy(
                update={
                    "missed": missed[one.candidate.uri],
                    "compared": contest.compared(one, best, against_best, against_champion),
                }
            )
            for one in ranked
        ],
        select_by=options.select_by,
        gate=options.gate,
        champion=_shown(champion, stays) if champion else None,
        passed=passed,
        serves_champion=serves_champion,
        decision=" ".join(sentences),
    )


class _Contest:
    """How the models of one decision are compared, and how that is told."""

    def __init__(self, options: SelectOptions, contenders: int, classes: int) -> None:
        self._by = options.select_by
        self._contenders = contenders
        self._classes = classes

    def difference(self, first: Contender | Deployed, second: Contender | Deployed) -> Difference:
        return difference(first.answers, second.answers, self._by, self._classes)

    def rank(self, contender: Contender) -> tuple[float, int]:
        """The best score first, of the same score the fewest parameters."""
        value = self._value(contender.evaluation)
        return (value if lower_is_better(self._by) else -value, contender.candidate.parameters)

    def selection(self, selected: Contender, best: Contender, found: Difference, rule: str) -> str:
        name = selected.candidate.name
        text = f"{name} is selected with a validation {TITLES[self._by]} of {self._words(selected.evaluation)}"
        if selected is best:
            return f"{text}."
        value = number_words(self._by, self._value(best.evaluation))
        return (
            f"{text}: {best.candidate.name} has {value}, but on the same {len(best.answers):,} images that is within "
            f"chance ({_p(found)}), and {name} {rule}."
        )

    def meeting(self, selected: Contender, deployed: Deployed, found: Difference, passed: bool) -> str:
        if selected.candidate.uri == deployed.evaluation.uri:
            return "It is the model that is deployed already: that one stays."
        value = number_words(self._by, self._value(deployed.evaluation))
        seen = ""
        if deployed.evaluation.trained_on != selected.evaluation.measured_on:
            seen = " (it was trained on another data set or split, and may have seen some of them)"
        text = f"The deployed model, {_name(deployed.evaluation)}, has {value} on the same images{seen}"
        if passed:
            return f"{text}, and is beaten by more than chance ({_p(found)})."
        if found.better < 0 and found.beyond_chance(self._contenders):
            verdict = "is better"
        else:
            verdict = f"is not beaten by more than chance ({_p(found)})"
        return f"{text} and {verdict}: that one stays. force = true deploys the new one all the same."

    def compared(
        self,
        one: Contender,
        best: Contender,
        against_best: Mapping[str, Difference],
        against_champion: Mapping[str, Difference],
    ) -> str:
        told, found = [], against_best[one.candidate.uri]
        if one is not best:
            if found.beyond_chance(max(1, self._contenders - 1)):
                verdict = f"{'better' if found.better > 0 else 'worse'} than {best.candidate.name}"
            else:
                verdict = f"equal to {best.candidate.name}"
            told.append(f"{verdict} ({_p(found)})")
        elif self._contenders > 1:
            told.append("best score")
        if champions := against_champion.get(one.candidate.uri):
            beaten = "beats" if champions.is_better(self._contenders) else "does not beat"
            told.append(f"{beaten} the deployed one ({_p(champions)})")
        return ", ".join(told)

    def _value(self, evaluation: Evaluation) -> float:
        return evaluation.splits["validation"].measured()[self._by].value

    def _words(self, evaluation: Evaluation) -> str:
        return score_words(self._by, evaluation.splits["validation"].measured()[self._by])


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


def _missed(evaluation: Evaluation, options: SelectOptions) -> list[str]:
    """What a model does not reach, in words that follow `is`."""
    by, value = options.select_by, evaluation.splits["validation"].measured()[options.select_by].value
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


def _floor(name: str, options: SelectOptions) -> float:
    return options.min_recall.get(name, options.min_recall.get(EVERY_CLASS, 0.0))


def _check(contenders: Sequence[Contender], options: SelectOptions, deployed: Deployed | NoChampion | None) -> None:
    first = contenders[0].evaluation
    problems = [
        f"min_recall: {name!r} is no class of the data set; its classes are {', '.join(first.class_names[:20])}"
        for name in options.min_recall
        if name not in first.class_names and name != EVERY_CLASS
    ]
    if options.select_by not in first.splits["validation"].measured():
        problems.append(
            f"select_by = {options.select_by!r}: says little of {len(first.class_names)} classes; it takes "
            f"{TOP_FROM_CLASSES} or more"
        )
    met: list[Contender | Deployed] = [*contenders, *([deployed] if isinstance(deployed, Deployed) else [])]
    if any(_images_of(one) != _images_of(contenders[0]) for one in met) or any(
        not np.array_equal(one.answers["label"], contenders[0].answers["label"]) for one in met
    ):
        problems.append("evaluations: were not made on the same images; evaluate all models on one data set")
    if problems:
        raise InvalidInput(problems)


def _images_of(one: Contender | Deployed) -> tuple[str, list[str]]:
    return one.evaluation.measured_on, one.evaluation.class_names


def _shown(deployed: Deployed, stays: bool) -> Champion:
    evaluation = deployed.evaluation
    return Champion(
        name=_name(evaluation),
        uri=evaluation.uri,
        validation=evaluation.splits["validation"],
        parameters=evaluation.parameters,
        stays=stays,
    )


def _name(evaluation: Evaluation) -> str:
    return f"{evaluation.model_type} of run {evaluation.run}" if evaluation.run else evaluation.model_type


def _p(found: Difference) -> str:
    return "p < 0.001" if found.p_value < 0.001 else f"p = {found.p_value:.3f}"


def _listed(clauses: Sequence[str]) -> str:
    return " and ".join(clauses)
