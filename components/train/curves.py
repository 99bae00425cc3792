"""Learning curves: what the chief wrote down about each epoch, as pictures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from components import html_report

History = Sequence[Mapping[str, Any]]


def read_history(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def curves_page(model_type: str, history: History) -> str:
    """Renders the learning curves of one model as an HTML page."""
    last = history[-1]
    columns = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second"]
    rows = [
        [row["epoch"], *(row[name] for name in columns[1:5]), f"{row['learning_rate']:.0e}", round(row[columns[6]])]
        for row in history
    ]
    return html_report.page(
        f"Training of {model_type}",
        f"{len(history)} epochs; validation accuracy {last['val_accuracy']:.2%} in the last.",
        [
            html_report.Section(
                "Learning curves",
                html_report.picture(learning_curves(history), f"Loss and accuracy of {model_type} by epoch"),
            ),
            html_report.Section("Epochs", html_report.table([column.replace("_", " ") for column in columns], rows)),
        ],
    )


def learning_curves(history: History) -> Figure:
    """Draws loss and accuracy, training and validation, by epoch."""
    epochs = [row["epoch"] for row in history]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        axis.plot(epochs, [row[name] for row in history], label="training", color="#7a8794")
        axis.plot(epochs, [row[f"val_{name}"] for row in history], label="validation", color="#1666c1")
        axis.set_xlabel("epoch")
        axis.set_title(name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.tight_layout()
    plt.close(figure)
    return figure
