from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfp_image_classification.components.contracts.class_means import balanced_accuracy, macro_f1
from kfp_image_classification.components.contracts.measures import MeasureName
from kfp_image_classification.components.train.history import best_epoch
from kfp_image_classification.components.train.worker.best_epoch import BestEpoch
from kfp_image_classification.components.train.worker.steps import build_validation

EPOCHS = [
    {"epoch": 1, "val_accuracy": 0.5, "val_loss": 2.0},
    {"epoch": 2, "val_accuracy": 0.7, "val_loss": 1.0},
    {"epoch": 3, "val_accuracy": 0.7, "val_loss": 0.5},
    {"epoch": 4, "val_accuracy": 0.7, "val_loss": 0.5},
    {"epoch": 5, "val_accuracy": 0.6, "val_loss": 0.1},
]


def small_model() -> keras.Model:
    return keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(2), keras.layers.BatchNormalization()])


@pytest.mark.parametrize("restart_after", [0, 1, 3, 5])
def test_best_epoch_and_its_weights_survive_a_restart(restart_after: int, tmp_path: Path) -> None:
    model = small_model()
    best = BestEpoch(model, "accuracy", keeps_weights=True)
    for row in EPOCHS:
        if row["epoch"] == restart_after + 1:
            path = tf.train.Checkpoint(best=best).write(str(tmp_path / "checkpoint"))
            best = BestEpoch(model, "accuracy", keeps_weights=True)
            tf.train.Checkpoint(best=best).read(path).assert_existing_objects_matched()
        for weight in model.weights:
            weight.assign(tf.fill(weight.shape, float(row["epoch"])))
        best.offer(int(row["epoch"]), row, model)
    assert best.epoch == best_epoch(EPOCHS, "accuracy")["epoch"] == 3
    best.give_back(model)
    assert {float(value) for weight in model.get_weights() for value in np.ravel(weight)} == {3.0}


@pytest.mark.parametrize(("measure", "best"), [("accuracy", 3), ("log_loss", 5), ("macro_f1", 2)])
def test_what_models_are_selected_by_decides_between_epochs(measure: MeasureName, best: int) -> None:
    rows = [{**row, "val_macro_f1": 0.9 if row["epoch"] == 2 else 0.8} for row in EPOCHS]
    model = small_model()
    found = BestEpoch(model, measure, keeps_weights=False)
    for row in rows:
        found.offer(int(row["epoch"]), row, model)
    assert found.epoch == best_epoch(rows, measure)["epoch"] == best


@pytest.mark.parametrize("measure", ["accuracy", "macro_f1", "balanced_accuracy", "log_loss", "top5"])
def test_validation_measures_what_models_are_selected_by(measure: MeasureName) -> None:
    random = np.random.default_rng(0)
    model = keras.Sequential([keras.layers.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(12)])
    pixels, labels = random.integers(0, 256, (300, 4, 4, 1), np.uint8), random.integers(0, 11, 300)
    scores = build_validation(model, measure, lambda total: total)(
        [(tf.constant(pixels[part]), tf.constant(labels[part])) for part in (slice(0, 200), slice(200, 300))]
    )
    logits = model(pixels / np.float32(255)).numpy()
    confusion = np.zeros((12, 12))
    np.add.at(confusion, (labels, logits.argmax(-1)), 1)
    hits, actual, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    expected = {
        "accuracy": hits.sum() / 300,
        "macro_f1": macro_f1(hits, actual, predicted),
        "balanced_accuracy": balanced_accuracy(hits, actual),
        "log_loss": scores["val_loss"],
        "top5": np.mean((logits > np.take_along_axis(logits, labels[:, None], 1)).sum(1) < 5),
    }
    assert scores.get(f"val_{measure}", scores["val_loss"]) == pytest.approx(expected[measure], rel=1e-5)
    assert scores["val_accuracy"] == pytest.approx(expected["accuracy"])


def test_last_weights_stay_where_only_the_epoch_is_remembered() -> None:
    model = small_model()
    best = BestEpoch(model, "accuracy", keeps_weights=False)
    before = model.get_weights()
    best.offer(1, EPOCHS[0], model)
    best.give_back(model)
    assert best.epoch == 1
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
