"""When something counts as drift: tables, and a simulation of how often an alarm is false or missing."""

import numpy as np
import pytest

from kfp_image_classification.components.contracts.measures import Score
from kfp_image_classification.components.monitor.drift import (
    FALSE_ALARMS,
    Comparison,
    Sample,
    compared,
    confidence_counts,
    images_needed,
)
from kfp_image_classification.components.monitor.findings import Decision, Findings, decided, live_accuracy
from kfp_image_classification.components.monitor.options import RetrainOn
from kfp_image_classification.components.monitor.prometheus_text import prometheus_text

EVEN = np.full(10, 50)


def verdict(reference: list[int] | np.ndarray, lately: list[int] | np.ndarray, is_ordered: bool = True) -> str:
    (one,) = compared([Sample("x", np.array(reference), np.array(lately), is_ordered)], 0.2)
    return one.verdict


@pytest.mark.parametrize(
    ("reference", "lately", "expected"),
    [
        (EVEN, EVEN * 10, "steady"),
        (EVEN, [0] * 10, "too few"),
        (EVEN, [0, 0, 0, 0, 0, 0, 0, 0, 0, 60], "too few"),  # however far off it looks
        (EVEN, [0, 0, 0, 0, 0, 0, 0, 0, 0, 600], "drift"),
        (EVEN, [45, 55] * 5 * 100, "steady"),  # chance does not make it, and it does not matter
        (EVEN // 10, EVEN * 100, "too few"),  # five images a part are no reference
        ([5000] + [0] * 31, [500] + [0] * 31, "steady"),  # all that the model knows is alike
        ([5000] + [0] * 31, [0] * 31 + [500], "drift"),
        ([0] * 10, [500] * 10, "too few"),
    ],
)
def test_verdict(reference: list[int], lately: list[int], expected: str) -> None:
    lately = np.tile(lately, 1)[: len(reference)]
    assert verdict(reference, lately) == expected
    assert verdict(reference, lately, is_ordered=False) == expected


def test_alarms_are_seldom_false_and_seldom_missing() -> None:
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.full(10, 5))
    needed = images_needed(400, 9, 0.2, FALSE_ALARMS)
    assert needed == 194
    # From an index of 0.1 as of 0.4 on: the threshold lies between.
    drifted = {size: np.abs(shares + size * np.where(np.arange(10) % 2, 1, -1)) for size in (0.0, 0.05)}
    alarms = {}
    for size, other in drifted.items():
        other = other / other.sum()
        looks = [
            verdict(random.multinomial(400, shares), random.multinomial(2 * needed, other)) == "drift"
            for _ in range(300)
        ]
        alarms[size] = np.mean(looks)
    assert alarms[0.0] <= 0.01
    assert alarms[0.05] >= 0.9


def test_many_classes_need_more_images_and_a_larger_reference() -> None:
    few, many = (images_needed(5000, freedom, 0.2, 0.0025) for freedom in (1, 20))
    assert few is not None
    assert many is not None
    assert 60 < few < many < 300
    assert images_needed(50, 9, 0.2, 0.0025) is None


def test_confidences_are_told_apart_near_certainty() -> None:
    assert confidence_counts([0.0, 0.9995, 1.0, 1.0000001, 0.99991]).tolist() == [1] + [0] * 10 + [1, 3]


def comparison(verdict: str, name: str = "brightness", images: int = 500, needed: int | None = 200) -> Comparison:
    return Comparison(name, 0.5, 1e-9, images, needed, verdict)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("comparisons", "words"),
    [
        ([comparison("drift"), comparison("steady", "classes")], "drift: brightness (0.50)"),
        ([comparison("steady")], "no drift"),
        ([comparison("steady"), comparison("too few", "classes")], "no drift; too few images to tell of classes"),
        ([comparison("too few", images=7)], "nothing can be said: 7 images, and it takes 200"),
        ([comparison("too few", needed=None)], "nothing can be said: the data set has too few images to compare with"),
    ],
)
def test_what_is_said(comparisons: list[Comparison], words: str) -> None:
    assert Findings(comparisons).words == words


DRIFT, STEADY = [comparison("drift")], [comparison("steady")]


@pytest.mark.parametrize(
    ("findings", "retrain_on", "enough", "retrain", "words"),
    [
        (Findings(DRIFT), "drift", 100, True, "trains anew, as it has drifted"),
        (Findings(STEADY, new_images=500), "drift", 100, False, "does not train anew"),
        (Findings(DRIFT), "new_data", 100, True, "trains anew, as it has drifted"),
        (
            Findings(STEADY, new_images=60, new_labels=40),
            "new_data",
            100,
            True,
            "trains anew, as 100 images are new, 40 of them labelled requests; 100 are enough",
        ),
        (
            Findings(STEADY, new_images=99),
            "new_data",
            100,
            False,
            "does not train anew, as 99 images are new, and it takes 100",
        ),
        (
            Findings(STEADY, new_images=500, known_images=5000),
            "new_data",
            0.1,
            True,
            "trains anew, as 500 images are new; 500 are enough",
        ),
        (
            Findings(STEADY, new_images=499, known_images=5000),
            "new_data",
            0.1,
            False,
            "does not train anew, as 499 images are new, and it takes 500",
        ),
        # Nobody knows what it was trained on: a share of nothing is an image.
        (Findings(STEADY), "new_data", 0.1, False, "does not train anew, as 0 images are new, and it takes 1"),
        (Findings([comparison("too few")]), "always", 100, True, "trains anew, as it always does"),
    ],
)
def test_when_to_train_anew(
    findings: Findings, retrain_on: RetrainOn, enough: float, retrain: bool, words: str
) -> None:
    assert decided(findings, retrain_on, enough) == Decision(retrain, words)


def test_prometheus_is_told_nothing_from_too_little_data() -> None:
    findings = Findings([comparison("drift"), comparison("too few", "classes")], live=live_accuracy(9, 10))
    text = prometheus_text(findings)
    assert 'classifier_drifted{of="brightness"} 1\n' in text
    assert "classes" not in text
    assert "classifier_live_accuracy 0.9\n" in text
    assert isinstance(findings.live, Score)
    assert live_accuracy(0, 0) is None
