from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfp_image_classification.components.train.history import best_epoch
from kfp_image_classification.components.train.worker.best_epoch import BestEpoch

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
    best = BestEpoch(model, keeps_weights=True)
    for row in EPOCHS:
        if row["epoch"] == restart_after + 1:
            path = tf.train.Checkpoint(best=best).write(str(tmp_path / "checkpoint"))
            best = BestEpoch(model, keeps_weights=True)
            tf.train.Checkpoint(best=best).read(path).assert_existing_objects_matched()
        for weight in model.weights:
            weight.assign(tf.fill(weight.shape, float(row["epoch"])))
        best.offer(int(row["epoch"]), row, model)
    assert best.epoch == best_epoch(EPOCHS)["epoch"] == 3
    best.give_back(model)
    assert {float(value) for weight in model.get_weights() for value in np.ravel(weight)} == {3.0}


def test_last_weights_stay_where_only_the_epoch_is_remembered() -> None:
    model = small_model()
    best = BestEpoch(model, keeps_weights=False)
    before = model.get_weights()
    best.offer(1, EPOCHS[0], model)
    best.give_back(model)
    assert best.epoch == 1
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
