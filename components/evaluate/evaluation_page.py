"""The evaluation of one model as a page: scores, confusion matrix, and the images it was most wrong about."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from components import html_report
from components.evaluate.predictions import Predictions
from components.evaluate.scores import Scores

COLUMNS = 8
# Above this, numbers in the cells would not be legible.
MOST_CLASSES_WITH_NUMBERS = 20


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
            html_report.Section(
                "Confusion matrix",
                html_report.picture(
                    confusion_picture(test.confusion, class_names), "Images by true and predicted class"
                ),
            ),
            html_report.Section(
                "Most confidently wrong",
                html_report.picture(
                    wrong_images(predictions, class_names), "The images whose wrong class the model was most sure of"
                )
                if wrong
                else html_report.note("None: every test image was recognised."),
            ),
            html_report.Section(
                "Classes", html_report.table(["class", "precision", "recall", "F1", "images"], by_class)
            ),
        ],
    )


def confusion_picture(confusion: np.ndarray, class_names: list[str]) -> Figure:
    """Draws a confusion matrix; colours show shares of the true class, numbers count images."""
    count = len(class_names)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = min(12.0, max(4.5, 0.55 * count))
    figure, axis = plt.subplots(figsize=(side + 0.8, side))
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    if count <= MOST_CLASSES_WITH_NUMBERS:
        slanted = max(map(len, class_names)) > 3
        axis.set_xticks(range(count), class_names, rotation=45 if slanted else 0, ha="right" if slanted else "center")
        axis.set_yticks(range(count), class_names)
        for row, column in np.argwhere(confusion):
            axis.text(
                column,
                row,
                str(confusion[row, column]),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if shares[row, column] > 0.5 else "black",
            )
    figure.colorbar(image, ax=axis, fraction=0.046, label="share of the true class")
    plt.close(figure)
    return figure


def wrong_images(predictions: Predictions, class_names: list[str]) -> Figure:
    """Draws the most confidently wrong images, with what they are and what the model took them for."""
    count = len(predictions.wrong)
    rows = -(-count // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(COLUMNS * 1.3, rows * 1.75), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    probabilities = predictions.probabilities
    for axis, image, position in zip(axes.flat, predictions.pixels, predictions.wrong, strict=False):
        predicted = int(predictions.classes[position])
        axis.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        axis.set_title(
            f"{class_names[predictions.labels[position]]} as {class_names[predicted]}\n"
            f"{probabilities[position, predicted]:.1%} sure",
            fontsize=8,
        )
    figure.tight_layout(pad=0.5)
    plt.close(figure)
    return figure
