"""Which model is selected and what is deployed, as a table: models that answer the same images."""

from typing import Any

import numpy as np
import pytest
from evaluations import answers_with, evaluation_of
from scipy import stats

from benchmarks.select.run import simulate
from kfp_image_classification.components.contracts.evaluation import ANSWER, NoChampion
from kfp_image_classification.components.select import decision
from kfp_image_classification.components.select.comparison import difference
from kfp_image_classification.components.select.decision import Contender, Deployed
from kfp_image_classification.components.select.explanation import leaderboard_of
from kfp_image_classification.components.select.leaderboard import Candidate, Leaderboard, leaderboard_page
from kfp_image_classification.components.select.options import ChampionOptions, SelectOptions
from kfp_image_classification.components.step.errors import InvalidInput, checked


def contender(
    name: str, wrong: list[int] | range, parameters: int = 10, milliseconds: float = 1.0, **more: Any
) -> Contender:
    answers = answers_with(wrong)
    evaluation = evaluation_of(name, answers, parameters, milliseconds, **more)
    candidate = Candidate(
        name=name,
        uri=f"/{name}",
        evaluation_uri="",
        dataset_uri="",
        validation=evaluation.splits["validation"],
        test=evaluation.splits["test"],
        parameters=parameters,
        bytes=1000,
        answer_seconds=milliseconds / 1000,
        dataset_fingerprint="f1",
    )
    return Contender(candidate, evaluation, answers)


def deployed(wrong: list[int] | range, **more: Any) -> Deployed:
    answers = answers_with(wrong)
    return Deployed(evaluation_of("champion", answers, 10, 1.0, **more), answers)


def decide(
    contenders: list[Contender], chosen: SelectOptions, champion: Deployed | NoChampion | None = None
) -> Leaderboard:
    return leaderboard_of(decision.decide(contenders, chosen, champion), chosen, champion)


def options(**values: Any) -> SelectOptions:
    return checked(SelectOptions, **{"gate": 0.0, "deploy_backend": "kserve", **values})


@pytest.mark.parametrize(
    ("contenders", "order", "why"),
    [
        ([contender("low", range(40)), contender("high", range(10))], ["high", "low"], "high is selected with a"),
        (
            [contender("big", range(10), parameters=20), contender("small", range(12), parameters=10)],
            ["small", "big"],
            "big has 97.50%, but on the same 400 images that is within chance (p = 0.500), and small has fewer para",
        ),
        (
            [contender("slow", range(10), milliseconds=2.0), contender("fast", range(12))],
            ["fast", "slow"],
            "and fast is faster.",
        ),
        # Within a quarter, times are noise.
        ([contender("better", range(10), milliseconds=1.2), contender("worse", range(12))], ["better", "worse"], ""),
        ([contender("first", range(10)), contender("second", range(10))], ["first", "second"], ""),
        # The difference must be chance for each pair with the best one, whoever else is there.
        (
            [
                contender("best", range(10), parameters=30),
                contender("smaller", range(14), parameters=20),
                contender("smallest", range(60), parameters=10),
            ],
            ["smaller", "best", "smallest"],
            "smaller has fewer parameters",
        ),
    ],
)
def test_order_and_why(contenders: list[Contender], order: list[str], why: str) -> None:
    ranking = decide(contenders, options())
    assert [candidate.name for candidate in ranking.candidates] == order
    assert why in ranking.decision
    assert ranking.passed


def test_page_says_how_each_compares() -> None:
    models = [
        contender("best", range(10), parameters=30),
        contender("equal", range(12), parameters=20),
        contender("worse", range(60)),
    ]
    ranking = decide(models, options(), deployed(range(30, 60)))
    page = leaderboard_page(ranking)
    for told in ("the best score", "equal, p = 0.500", "worse, p &lt; 0.001", "beats it, p = 0.002", "reached"):
        assert f"<td>{told}</td>" in page, told
    assert page.count('class="best"') == 1
    assert "deployed: champion of run r1" in page


@pytest.mark.parametrize(
    ("gate", "select_by", "passed"),
    [
        (0.0, "accuracy", True),
        (0.9, "accuracy", True),
        (0.9001, "accuracy", False),
        (0.9, "macro_f1", True),
        (0.91, "balanced_accuracy", False),
        (0.35, "log_loss", True),
        (0.3, "log_loss", False),
    ],
)
def test_gate_goes_by_what_is_selected_by(gate: float, select_by: str, passed: bool) -> None:
    ranking = decide([contender("a", range(40))], options(gate=gate, select_by=select_by))
    assert ranking.passed is passed
    assert ("nothing is deployed" in ranking.decision) is not passed
    assert ('class="best"' in leaderboard_page(ranking)) is passed


def test_gate_and_its_value_are_told() -> None:
    assert (
        "It is below the gate = 95.00%: nothing is deployed."
        in decide([contender("a", range(40))], options(gate=0.95)).decision
    )
    assert (
        "It is above the gate = 0.1000: nothing is deployed."
        in decide([contender("a", range(40))], options(gate=0.1, select_by="log_loss")).decision
    )


DOGS = range(1, 101, 2)  # fifty dogs, a quarter of them


@pytest.mark.parametrize(
    ("floors", "told"),
    [
        ({"dog": 0.75}, ""),
        ({"dog": 0.76}, "below min_recall for dog (75.0% of its images, floor 76.0%)"),
        ({"*": 0.8}, "below min_recall for dog (75.0% of its images, floor 80.0%)"),
        ({"*": 0.8, "dog": 0.7}, ""),
        ({"cat": 1.0}, ""),
    ],
)
def test_floors_of_classes(floors: dict[str, float], told: str) -> None:
    ranking = decide([contender("a", DOGS)], options(min_recall=floors))
    assert ranking.passed is not bool(told)
    assert told in ranking.decision


def test_model_below_a_floor_gives_way_to_one_that_is_not() -> None:
    """However much better it is on the whole."""
    models = [contender("good", range(1, 41, 2)), contender("fair", range(60))]
    ranking = decide(models, options(min_recall={"dog": 0.85}))
    assert ranking.best.name == "good"
    ranking = decide(
        [contender("good", range(1, 80, 2)), contender("fair", range(60))], options(min_recall={"dog": 0.85})
    )
    assert (ranking.best.name, ranking.passed) == ("fair", True)
    assert "below min_recall for dog" in leaderboard_page(ranking)


@pytest.mark.parametrize(
    ("wrong", "champions_wrong", "passed", "told"),
    [
        (range(10), range(12), False, "is not beaten by more than chance (p = 0.500): that one stays. force = true"),
        (range(10), range(15), False, "is not beaten by more than chance (p = 0.062)"),
        (range(10), range(16), True, "has 96.00% on the same images, and is beaten by more than chance (p = 0.031)."),
        (range(10), range(10), False, "is not beaten by more than chance (p = 1.000)"),
        (range(20), range(10), False, "has 97.50% on the same images and is better: that one stays."),
    ],
)
def test_champion_has_to_be_beaten_by_more_than_chance(
    wrong: range, champions_wrong: range, passed: bool, told: str
) -> None:
    ranking = decide([contender("a", wrong)], options(), deployed(champions_wrong))
    assert ranking.passed is passed
    assert told in ranking.decision
    assert told[-20:] in leaderboard_page(ranking)
    assert ranking.champion is not None
    assert ranking.champion.stays is not passed
    assert not ranking.serves_champion, "on a cluster it is served all the time"


def test_each_new_model_has_its_own_chance_to_look_better() -> None:
    """The same difference that is enough for one new model is not for the best of three."""
    alone, others = contender("a", range(10)), [contender(name, range(16)) for name in "bc"]
    assert decide([alone], options(), deployed(range(16))).passed
    assert not decide([alone, *others], options(), deployed(range(16))).passed


def test_larger_model_is_taken_where_it_alone_beats_the_champion() -> None:
    models = [contender("big", range(10), parameters=20), contender("small", range(14), parameters=10)]
    assert decide(models, options()).best.name == "small"
    ranking = decide(models, options(), deployed(range(18)))
    assert (ranking.best.name, ranking.passed) == ("big", True)


def test_champion_of_another_data_set_is_measured_and_told() -> None:
    ranking = decide([contender("a", range(10))], options(), deployed(range(30), trained_on="theirs"))
    assert ranking.passed
    assert "(it was trained on another data set or split, and may have seen some of them)" in ranking.decision


def test_model_that_is_deployed_already() -> None:
    ranking = decide([contender("a", range(10))], options(), deployed(range(10), uri="/a"))
    assert not ranking.passed
    assert "It is the model that is deployed already: that one stays." in ranking.decision


@pytest.mark.parametrize(
    ("gate", "champions_wrong", "serves", "told"),
    [
        (
            0.9,
            range(10),
            True,
            "force = true deploys the new one all the same. The model that was served last is served",
        ),
        (0.98, range(10), False, "It is below the gate = 98.00%: nothing is deployed."),
        (
            0.98,
            range(4),
            True,
            "It is below the gate = 98.00%: no new model is deployed. The model that was served",
        ),
    ],
)
def test_on_this_machine_a_champion_that_stays_is_served_again(
    gate: float, champions_wrong: range, serves: bool, told: str
) -> None:
    ranking = decide([contender("a", range(10))], options(gate=gate, deploy_backend="local"), deployed(champions_wrong))
    assert (ranking.passed, ranking.serves_champion) == (False, serves)
    assert told in ranking.decision


@pytest.mark.parametrize(
    ("champion", "passed", "told"),
    [
        (None, True, ""),
        (NoChampion(), True, ""),
        (
            NoChampion(reason="it tells other classes apart than these"),
            True,
            "be compared on these images: it",
        ),
        (NoChampion(reason="its files are gone", holds_back=True), False, "gone. Nothing is deployed. force = true"),
    ],
)
def test_champion_that_cannot_be_compared(champion: NoChampion | None, passed: bool, told: str) -> None:
    ranking = decide([contender("a", range(10))], options(), champion)
    assert ranking.passed is passed
    assert told in ranking.decision


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gate": -0.1}, "^gate = -0.1"),
        ({"gate": 1.1}, "gate = 1.1: accuracy is a share; give a number from 0 to 1"),
        ({"gate": float("nan")}, "^gate = nan"),
        ({"gate": float("inf"), "select_by": "log_loss"}, "^gate = inf"),
        ({"select_by": "auc"}, "^select_by = 'auc'"),
        ({"min_recall": {"cat": 2}}, "^min_recall.cat = 2"),
        ({"min_recall": {"cat": "much"}}, "^min_recall.cat = 'much'"),
    ],
)
def test_bad_options(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        options(**values)


def test_options_that_do_not_fit_the_classes() -> None:
    with pytest.raises(InvalidInput, match=r"min_recall: 'cow' is no class of the data set; its classes are cat, dog"):
        decide([contender("a", range(10))], options(min_recall={"cow": 0.5}))
    with pytest.raises(InvalidInput, match=r"select_by = 'top5': says little of 2 classes; it takes 11 or more"):
        decide([contender("a", range(10))], options(select_by="top5"))


def test_models_of_different_images_are_not_compared() -> None:
    with pytest.raises(InvalidInput, match="not made on the same images"):
        decide([contender("a", range(10)), contender("b", range(10), measured_on="f2")], options())


def test_names_cannot_break_the_page() -> None:
    page = leaderboard_page(decide([contender("<script>alert(1)</script>", range(10))], options()))
    assert "<script>alert" not in page


@pytest.mark.parametrize(
    ("values", "has_champion"),
    [
        ({"service_name": "digits", "deploy_backend": "kserve"}, True),
        ({"service_name": "digits", "deploy_backend": "kserve", "force": True}, False),
        ({"service_name": "", "deploy_backend": "kserve"}, False),
        ({"service_name": "digits", "deploy_backend": "local"}, True),
        ({"service_name": "digits"}, True),
    ],
)
def test_when_a_deployed_model_is_looked_for(values: dict[str, Any], has_champion: bool) -> None:
    assert checked(ChampionOptions, **values).has_champion is has_champion


def random_pair(classes: int, images: int = 300) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(5)
    pair = []
    labels = drawn.integers(0, classes, images)
    for wrong in (0.08, 0.14):
        answers = np.zeros(images, ANSWER)
        answers["label"] = labels
        answers["predicted"] = np.where(drawn.random(images) < wrong, drawn.integers(0, classes, images), labels)
        answers["log_likelihood"] = -drawn.exponential(wrong, images)
        answers["rank"] = drawn.integers(0, 12, images)
        pair.append(answers)
    return pair[0], pair[1]


@pytest.mark.parametrize("measure", ["macro_f1", "balanced_accuracy"])
def test_exchanged_answers_are_scipys_permutation_test(measure: Any) -> None:
    first, second = random_pair(4)
    labels = first["label"]

    def ours(taken: np.ndarray) -> float:
        hits, actual, predicted = (np.bincount(of, minlength=4) for of in (labels[taken == labels], labels, taken))
        return float(np.mean(hits / actual if measure == "balanced_accuracy" else 2 * hits / (actual + predicted)))

    expected = stats.permutation_test(
        (first["predicted"], second["predicted"]),
        lambda a, b: ours(a) - ours(b),
        permutation_type="samples",
        vectorized=False,
        n_resamples=2000,
        batch=100,
        rng=np.random.default_rng(1),
    )
    found = difference(first, second, measure, 4)
    assert found.better == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.05)


def test_other_measures_are_compared_by_the_test_that_fits() -> None:
    first, second = random_pair(20)
    right = [answers["rank"] < 5 for answers in (first, second)]
    ours, theirs = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert difference(first, second, "top5", 20).p_value == stats.binomtest(ours, ours + theirs).pvalue
    losses = [answers["log_likelihood"].astype(float) for answers in (first, second)]
    found = difference(first, second, "log_loss", 20)
    assert found.p_value == stats.ttest_rel(*losses).pvalue
    assert found.better > 0, "the first one's loss is the lower one"


@pytest.mark.parametrize("measure", ["accuracy", "macro_f1", "balanced_accuracy", "log_loss", "top5"])
@pytest.mark.parametrize("images", [0, 1, 5])
def test_same_answers_and_few_images_differ_by_nothing(measure: Any, images: int) -> None:
    answers = answers_with([], images)
    assert difference(answers, answers, measure, 2).p_value == 1


def test_simulated_models_that_are_no_better_are_not_deployed() -> None:
    outcome = simulate(400, 0.0, decisions=100)
    assert outcome.after <= 0.05 < 0.5 < outcome.before
