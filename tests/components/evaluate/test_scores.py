"""Scores that are counted batch by batch, and their intervals, against scikit-learn and scipy on all images at once."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from kfp_image_classification.components.contracts.evaluation import ANSWER, answers_written, read_answers
from kfp_image_classification.components.evaluate import intervals
from kfp_image_classification.components.evaluate.scores import Tally, answers_of
from kfp_image_classification.components.step.errors import InvalidInput


def logits_and_labels(classes: int, images: int = 400, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(seed)
    labels = drawn.integers(0, classes, images)
    logits = drawn.normal(0, 1, (images, classes)).astype(np.float32)
    logits[np.arange(images), labels] += 2
    return logits, labels


def counted(logits: np.ndarray, labels: np.ndarray, batch: int = 64) -> Tally:
    tally = Tally([str(number) for number in range(logits.shape[1])])
    for start in range(0, len(labels), batch):
        tally.add(answers_of(labels[start : start + batch], logits[start : start + batch]))
    return tally


@pytest.mark.parametrize("classes", [2, 10, 30])
def test_scores_are_scikit_learns(classes: int) -> None:
    logits, labels = logits_and_labels(classes)
    tally = counted(logits, labels)
    scores, predicted = tally.scores(), logits.argmax(axis=1)
    likelihoods = np.exp(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    assert scores.images == len(labels)
    assert scores.accuracy.value == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert scores.macro_f1.value == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert scores.balanced_accuracy.value == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert scores.log_loss.value == pytest.approx(metrics.log_loss(labels, likelihoods), rel=1e-5)
    if classes > 10:
        assert scores.top5 is not None
        assert scores.top5.value == pytest.approx(metrics.top_k_accuracy_score(labels, logits, k=5))
    else:
        assert scores.top5 is None
    assert np.array_equal(tally.confusion, metrics.confusion_matrix(labels, predicted, labels=range(classes)))
    expected = metrics.precision_recall_fscore_support(labels, predicted, labels=range(classes), zero_division=0.0)
    for index, found in enumerate(tally.classes()):
        numbers = (found.precision, found.recall, found.f1, found.support)
        assert numbers == pytest.approx([column[index] for column in expected])


def test_scores_of_a_known_case() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]))
    tally = counted(logits, np.array([0, 1, 1, 2]), batch=3)
    scores = tally.scores()
    assert scores.accuracy.value == 0.75
    assert scores.log_loss.value == pytest.approx(-np.log([0.7, 0.3, 0.8, 0.6]).mean())
    assert tally.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert tally.recalls() == [1, 0.5, 1]


def test_calibration_error_of_a_known_case() -> None:
    """Half sure of ten images and right about eight; wholly sure of two and right about one."""
    answers = np.zeros(12, ANSWER)
    answers["confidence"] = [0.5] * 10 + [1.0] * 2
    answers["predicted"] = [0] * 8 + [1] * 2 + [0, 1]
    tally = Tally(["a", "b"])
    tally.add(answers)
    assert [(bin.confidence, bin.accuracy, bin.images) for bin in tally.bins()] == [(0.5, 0.8, 10), (1.0, 0.5, 2)]
    assert tally.scores().ece == pytest.approx((10 * 0.3 + 2 * 0.5) / 12)


def test_equal_logits_rank_as_argmax_takes_them() -> None:
    answers = answers_of(np.array([0, 1, 2]), np.zeros((3, 3), np.float32))
    assert answers["rank"].tolist() == [0, 1, 2]
    assert answers["predicted"].tolist() == [0, 0, 0]


def test_hopeless_answer_keeps_the_loss_finite() -> None:
    answers = answers_of(np.array([0]), np.array([[-1e4, 1e4]], np.float32))
    assert -100 < answers["log_likelihood"][0] < -80


def test_intervals_are_scipys() -> None:
    logits, labels = logits_and_labels(4)
    scores, predicted = counted(logits, labels).scores(), logits.argmax(axis=1)
    right = int((predicted == labels).sum())
    wilson = stats.binomtest(right, len(labels)).proportion_ci(0.95, "wilson")
    assert (scores.accuracy.low, scores.accuracy.high) == (wilson.low, wilson.high)
    losses = -answers_of(labels, logits)["log_likelihood"].astype(float)
    student = stats.ttest_1samp(losses, 0).confidence_interval(0.95)
    assert (scores.log_loss.low, scores.log_loss.high) == pytest.approx((student.low, student.high), rel=1e-6)

    def macro_f1(images: np.ndarray) -> float:
        return float(metrics.f1_score(labels[images], predicted[images], labels=range(4), average="macro"))

    bootstrap = stats.bootstrap(
        (np.arange(len(labels)),),
        macro_f1,
        vectorized=False,
        n_resamples=400,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (scores.macro_f1.low, scores.macro_f1.high) == pytest.approx((bootstrap.low, bootstrap.high), abs=0.012)


@pytest.mark.parametrize(("hits", "images"), [(0, 10), (10, 10), (1, 1), (0, 0)])
def test_interval_of_few_images_stays_a_share(hits: int, images: int) -> None:
    score = intervals.share(hits, images)
    assert 0 <= score.low <= score.value <= score.high <= 1
    assert score.high - score.low > 0.2


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    """A million images of a thousand classes: what is counted and written is kept nowhere."""
    images, batch = 1_000_000, 10_000
    answers = np.zeros(batch, ANSWER)
    answers["label"] = np.arange(batch) % 1000
    tally = Tally([str(number) for number in range(1000)])
    tracemalloc.start()
    with answers_written(tmp_path, "test", images) as write:
        for _ in range(images // batch):
            tally.add(answers)
            write(answers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
    assert tally.images == images
    assert len(read_answers(tmp_path, "test")) == images


def test_answers_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    with answers_written(tmp_path, "validation", 10) as write:
        write(np.zeros(9, ANSWER))
    with pytest.raises(InvalidInput, match=r"validation.npy cannot be read .* evaluate the model again"):
        read_answers(tmp_path, "validation")
    np.save(tmp_path / "test.npy", np.zeros(3))
    with pytest.raises(InvalidInput, match=r"test.npy is of another version"):
        read_answers(tmp_path, "test")
