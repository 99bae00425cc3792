"""A decision in words, for the log, the leaderboard and the report."""

from kfp_image_classification.components.contracts.evaluation import Evaluation, NoChampion
from kfp_image_classification.components.contracts.measures import TITLES, number_words, score_words
from kfp_image_classification.components.select.comparison import Difference
from kfp_image_classification.components.select.decision import Contender, Decision, Deployed, score_of
from kfp_image_classification.components.select.leaderboard import Candidate, Champion, Leaderboard
from kfp_image_classification.components.select.options import SelectOptions

FORCED = "force = true deploys the new one all the same."


def leaderboard_of(
    decision: Decision, options: SelectOptions, deployed: Deployed | NoChampion | None = None
) -> Leaderboard:
    """What is shown of a decision.

    Args:
        decision: What was decided.
        options: By what.
        deployed: The champion, or why there is none to compare with.
    """
    champion = decision.champion
    return Leaderboard(
        candidates=[_candidate(decision, one) for one in decision.ranked],
        select_by=options.select_by,
        gate=options.gate,
        champion=_champion(champion, stays=not decision.passed) if champion else None,
        passed=decision.passed,
        serves_champion=decision.serves_champion,
        decision=" ".join(filter(None, [_selection(decision, options), _outcome(decision, options, deployed)])),
    )


def _candidate(decision: Decision, one: Contender) -> Candidate:
    found, with_champion = decision.with_best[one.uri], decision.with_champion.get(one.uri)
    if one is decision.best:
        with_best = "the best score" if len(decision.ranked) > 1 else ""
    else:
        with_best = "equal" if decision.is_equal(one) else "better" if found.better > 0 else "worse"
        with_best += f", {_p(found)}"
    told = {
        "missed": decision.missed[one.uri],
        "against_best": with_best,
        "against_champion": "",
    }
    if with_champion:
        verdict = "beats it" if decision.beats_champion(one) else "does not beat it"
        told["against_champion"] = f"{verdict}, {_p(with_champion)}"
    return one.candidate.model_copy(update=told)


def _selection(decision: Decision, options: SelectOptions) -> str:
    selected, best, by = decision.selected, decision.best, options.select_by
    score = selected.evaluation.splits["validation"].measured()[by]
    name = selected.candidate.name
    text = f"{name} is selected with a validation {TITLES[by]} of {score_words(by, score)}"
    if selected is best:
        return f"{text}."
    return (
        f"{text}: {best.candidate.name} has {number_words(by, score_of(best.evaluation, options))}, but on the same "
        f"{len(best.answers):,} images that is within chance ({_p(decision.with_best[selected.uri])}), and {name} "
        f"{decision.rule}."
    )


def _outcome(decision: Decision, options: SelectOptions, deployed: Deployed | NoChampion | None) -> str:
    served = " The model that was served last is served again." if decision.serves_champion else ""
    if missed := decision.missed[decision.selected.uri]:
        nothing = "no new model" if served else "nothing"
        return f"It is {' and '.join(missed)}: {nothing} is deployed.{served}"
    if isinstance(deployed, NoChampion):
        return _not_compared(deployed)
    if not decision.champion:
        return ""
    if not served and not decision.passed and not options.to_cluster:
        served = f" It is {' and '.join(decision.champion_missed)} itself: nothing is served."
    return _meeting(decision, decision.champion, options) + served


def _not_compared(none: NoChampion) -> str:
    if not none.reason:
        return ""
    told = f"The deployed model could not be compared on these images: {none.reason}."
    return f"{told} Nothing is deployed. {FORCED}" if none.holds_back else told


def _meeting(decision: Decision, champion: Deployed, options: SelectOptions) -> str:
    selected, evaluation = decision.selected, champion.evaluation
    if selected.uri == evaluation.uri:
        return "It is the model that is deployed already: that one stays."
    found = decision.with_champion[selected.uri]
    seen = ""
    if evaluation.trained_on != evaluation.measured_on:
        seen = " (it was trained on another data set or split, and may have seen some of them)"
    value = number_words(options.select_by, score_of(evaluation, options))
    text = f"The deployed model, {_name(evaluation)}, has {value} on the same images{seen}"
    if decision.passed:
        return f"{text}, and is beaten by more than chance ({_p(found)})."
    is_better = found.better < 0 and found.beyond_chance(len(decision.ranked))
    verdict = "is better" if is_better else f"is not beaten by more than chance ({_p(found)})"
    return f"{text} and {verdict}: that one stays. {FORCED}"


def _champion(deployed: Deployed, stays: bool) -> Champion:
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
