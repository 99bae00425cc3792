"""The evaluation of one model as a page: scores, confusion matrix, calibration, and its most confident mistakes."""

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from kfp_image_classification.components.contracts.dataset_manifest import SplitName
from kfp_image_classification.components.contracts.measures import TITLES, SplitScores, score_words
from kfp_image_classification.components.evaluate.intervals import share
from kfp_image_classification.components.evaluate.measuring import Measured, WrongImage
from kfp_image_classification.components.evaluate.scores import Bin
from kfp_image_classification.components.report import html_report

MOST_CONFUSIONS = 8


def evaluation_page(model_type: str, scores: Mapping[SplitName, SplitScores], test: Measured) -> str:
    """Renders the page; all but the scores is of the test split.

    Args:
        model_type: The model's name.
        scores: Of the splits.
        test: The model on the test split.
    """
    tally = test.tally
    by_class = [[c.name, c.precision, c.recall, c.f1, c.support] for c in tally.classes()]
    return html_report.page(
        f"Evaluation of {model_type}",
        f"Test accuracy {scores['test'].accuracy.value:.2%}: {tally.wrong:,} of {tally.images:,} images wrong. "
        "Measured through the exported model's serving signature.",
        [
            html_report.Section("Scores", _scores(scores)),
            html_report.Section("Confusion matrix", _confusion(tally.confusion, tally.class_names)),
            html_report.Section("Calibration", _calibration(tally.bins(), scores["test"].ece)),
            html_report.Section(
                "Most confidently wrong",
                _wrong_images(test.wrong, tally.class_names)
                if test.wrong
                else html_report.note("None: every test image was recognised."),
            ),
            html_report.Section(
                "Classes", html_report.table(["class", "precision", "recall", "F1", "images"], by_class)
            ),
        ],
    )


def _scores(scores: Mapping[SplitName, SplitScores]) -> Markup:
    shown = list(next(iter(scores.values())).measured())
    rows = [
        [split, *(score_words(name, found.measured()[name]) for name in shown), f"{found.ece:.3f}", found.images]
        for split, found in scores.items()
    ]
    columns = ["split", *(TITLES[name] for name in shown), "calibration", "images"]
    return html_report.table(columns, rows) + html_report.note(
        "In brackets the 95% interval: where the score of endless images of the same kind is to be expected."
    )


def _confusion(confusion: np.ndarray, class_names: list[str]) -> Markup:
    """The matrix, and beside it the pairs of classes that were confused most often."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    most = [divmod(int(position), len(wrong)) for position in np.argsort(-wrong, axis=None, kind="stable")]
    pairs = [(true, taken) for true, taken in most[:MOST_CONFUSIONS] if wrong[true, taken]]
    note = html_report.note("Test images by true and predicted class; the colour shows the share of the true class.")
    matrix = html_report.matrix(confusion, class_names) + note
    if not pairs:
        return matrix
    bars = html_report.bars(
        [f"{class_names[true]} taken for {class_names[taken]}" for true, taken in pairs],
        [int(wrong[true, taken]) for true, taken in pairs],
    )
    return html_report.beside(matrix, html_report.subheading("Confused most often") + bars)


def _calibration(bins: list[Bin], ece: float) -> Markup:
    """The reliability diagram, and the same in numbers."""
    most = max((bin.images for bin in bins), default=1)
    dots, rows = [], []
    for bin in bins:
        right = share(round(bin.accuracy * bin.images), bin.images)
        words = score_words("accuracy", right)
        dots.append(
            html_report.Dot(
                bin.confidence,
                bin.accuracy,
                right.low,
                right.high,
                bin.images / most,
                f"{bin.confidence:.1%} sure: {words} right, {bin.images:,} images",
            )
        )
        rows.append([f"{bin.confidence:.1%}", words, bin.images])
    note = html_report.note(
        f"Of a model that is as sure as it is right, all points lie on the line; below it, it is too sure. On average "
        f"they are {ece:.3f} off, each image counting the same (expected calibration error, {len(bins)} bins of "
        "confidence that have images)."
    )
    chart = html_report.diagonal_chart("Share that is right", dots, "confidence")
    return html_report.charts(chart, html_report.table(["sure of it", "right", "images"], rows)) + note


def _wrong_images(wrong: list[WrongImage], class_names: list[str]) -> Markup:
    """The most confidently wrong images, with what they are and what the model took them for."""
    captions = [
        [f"{class_names[image.label]}, not {class_names[image.predicted]}", f"{image.confidence:.1%} sure"]
        for image in wrong
    ]
    return html_report.gallery([image.pixels for image in wrong], captions)
