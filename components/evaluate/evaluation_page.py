"""The evaluation of one model as a page: scores, confusion matrix, and the images it was most wrong about."""

import numpy as np
from markupsafe import Markup

from kfp_image_classification.components.evaluate.predictions import Predictions
from kfp_image_classification.components.evaluate.scores import Scores
from kfp_image_classification.components.report import html_report

MOST_CONFUSIONS = 8


def evaluation_page(
    model_type: str, class_names: list[str], validation: Scores, test: Scores, predictions: Predictions
) -> str:
    """Renders the page; confusion matrix, class scores and wrong images are of the test split."""
    wrong = int(np.count_nonzero(predictions.labels != predictions.classes))
    by_class = [[c.name, c.precision, c.recall, c.f1, c.support] for c in test.classes]
    return html_report.page(
        f"Evaluation of {model_type}",
        f"Test accuracy {test.accuracy:.2%}: {wrong:,} of {len(predictions.labels):,} images wrong. "
        "Measured through the exported model's serving signature.",
        [
            html_report.Section(
                "Scores",
                html_report.table(
                    ["split", "accuracy", "loss", "macro F1"],
                    [
                        ["validation", validation.accuracy, validation.loss, validation.macro_f1],
                        ["test", test.accuracy, test.loss, test.macro_f1],
                    ],
                ),
            ),
            html_report.Section("Confusion matrix", _confusion(test.confusion, class_names)),
            html_report.Section(
                "Most confidently wrong",
                _wrong_images(predictions, class_names)
                if wrong
                else html_report.note("None: every test image was recognised."),
            ),
            html_report.Section(
                "Classes", html_report.table(["class", "precision", "recall", "F1", "images"], by_class)
            ),
        ],
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


def _wrong_images(predictions: Predictions, class_names: list[str]) -> Markup:
    """The most confidently wrong images, with what they are and what the model took them for."""
    captions = []
    for position in predictions.wrong:
        predicted = int(predictions.classes[position])
        captions.append(
            [
                f"{class_names[predictions.labels[position]]}, not {class_names[predicted]}",
                f"{predictions.probabilities[position, predicted]:.1%} sure",
            ]
        )
    return html_report.gallery(predictions.pixels, captions)
