"""Learning curves: what the chief wrote down about each epoch, as pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from kfp_image_classification.components.report import html_report

History = Sequence[Mapping[str, Any]]


def curves_page(model_type: str, history: History, kept: int) -> str:
    """Renders the learning curves of one model as an HTML page.

    Args:
        model_type: The model's name.
        history: A row an epoch.
        kept: The epoch whose weights the model has.
    """
    accuracy = next(row["val_accuracy"] for row in history if row["epoch"] == kept)
    columns = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second"]
    rows = [
        [row["epoch"], *(row[name] for name in columns[1:5]), f"{row['learning_rate']:.0e}", round(row[columns[6]])]
        for row in history
    ]
    return html_report.page(
        f"Training of {model_type}",
        f"{len(history)} epochs; the model is that of epoch {kept}, with a validation accuracy of {accuracy:.2%}.",
        [
            html_report.Section(
                "Learning curves",
                learning_curves({model_type: history}),
            ),
            html_report.Section("Epochs", html_report.table([column.replace("_", " ") for column in columns], rows)),
        ],
    )


def learning_curves(histories: Mapping[str, History]) -> Markup:
    """Draws accuracy and loss by epoch, of one model or of several together.

    Args:
        histories: By the models' names.
    """
    drawn = []
    for title, name, unit in (("Accuracy", "accuracy", "%"), ("Loss", "loss", "")):
        series = [
            html_report.Series(label, [(row["epoch"], row[key]) for row in history], colour, minor)
            for colour, (model, history) in enumerate(histories.items())
            for label, key, minor in ((model, f"val_{name}", False), (f"{model}, training", name, True))
        ]
        drawn.append(html_report.line_chart(title, series, unit))
    return html_report.legend(list(histories), minor="training") + html_report.charts(*drawn)
