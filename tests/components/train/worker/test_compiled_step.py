"""The step compiled by XLA, on a CPU: it gives the same weights; a model that XLA cannot compile is trained without."""

import json
import subprocess
import sys
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kfp_image_classification.components.train.learning_rate import Schedule
from kfp_image_classification.components.train.options import TrainOptions
from kfp_image_classification.components.train.worker.batch_groups import BatchGroups
from kfp_image_classification.components.train.worker.compiled_step import is_wanted, waits_for_replicas
from kfp_image_classification.components.train.worker.losses import Objective
from kfp_image_classification.components.train.worker.models import build_model
from kfp_image_classification.components.train.worker.optimizers import build_optimizer
from kfp_image_classification.components.train.worker.steps import build_train_steps, collective_sum

BATCH, STEPS = 8, 5
# Ends within a group of two.
FIRST_CALL = 3
TOGETHER = 2


@pytest.mark.parametrize(
    ("option", "gpus", "wanted"),
    [("auto", 0, False), ("auto", 1, True), ("auto", 4, True), ("on", 0, True), ("on", 1, True), ("off", 1, False)],
)
def test_xla_is_for_gpus(option: str, gpus: int, wanted: bool) -> None:
    assert is_wanted(option, gpus) == wanted


class Unknown(layers.Layer):
    """An operation that XLA has not."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        doubled = tf.numpy_function(lambda values: 2 * values, [x], tf.float32)
        return x + tf.stop_gradient(tf.ensure_shape(doubled, x.shape))

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape


PLAIN = TrainOptions(model_type="cnn", workers=1, epochs=1, batch_size=BATCH, learning_rates="0:1e-3", seed=0)
RECIPES = {
    "adamw, mixup": {
        "optimizer": "adamw",
        "weight_decay": 0.1,
        "learning_rates": "warmup:0.2 cosine:1e-2",
        "gradient_clip": 0.5,
        "label_smoothing": 0.1,
        "mixup": 0.2,
    },
    "sgd": {"optimizer": "sgd", "weight_decay": 0.1, "label_smoothing": 0.1, "learning_rates": "0:1e-2"},
}


def trained(
    with_xla: bool, *more: keras.Layer, options: TrainOptions = PLAIN, together: int = 0
) -> tuple[list[np.ndarray], list[float]]:
    """The weights of a small model after some steps, in two calls, and what the steps summed."""
    keras.utils.set_random_seed(0)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = keras.Sequential(
            [layers.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="relu"), *more, layers.Flatten(), layers.Dense(3)]
        )
        optimizer = build_optimizer(options, Schedule.parse(options.learning_rates).rates(1, STEPS))
        optimizer.build(model.trainable_variables)
    objective = Objective([0.5, 1, 1.5], options.label_smoothing, options.mixup, options.seed)
    train_steps = build_train_steps(
        strategy, model, optimizer, objective, BATCH, partial(collective_sum, strategy), with_xla, together=together
    )
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (BATCH * STEPS, 8, 8, 1), np.uint8)
    labels = random.integers(0, 3, BATCH * STEPS)
    stream = tf.data.Dataset.from_tensor_slices((pixels, labels)).repeat().batch(BATCH, drop_remainder=True)
    stream = stream.batch(together, drop_remainder=True) if together else stream
    batches = iter(strategy.experimental_distribute_dataset(stream))
    batches = BatchGroups(batches, together) if together else batches
    results = sum(train_steps(batches, tf.constant(count), tf.zeros(1)) for count in (FIRST_CALL, STEPS - FIRST_CALL))
    assert int(optimizer.iterations.numpy()) == STEPS
    return model.get_weights(), results.numpy().tolist()


@pytest.mark.parametrize("together", [0, TOGETHER], ids=["one by one", "in groups"])
@pytest.mark.parametrize("layer", [None, layers.BatchNormalization], ids=["plain", "normalised"])
def test_weights_are_those_without(
    layer: type[keras.Layer] | None, together: int, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, compiled = (
        trained(with_xla, *([layer()] if layer else []), together=together if with_xla else 0)
        for with_xla in (False, True)
    )
    for expected, weights in zip(plain[0], compiled[0], strict=True):
        np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(compiled[1], plain[1], rtol=1e-5)
    assert capsys.readouterr().out == ""


def test_groups_change_nothing_where_xla_compiles_nothing() -> None:
    single, grouped = trained(False), trained(False, together=TOGETHER)
    for expected, weights in zip(single[0], grouped[0], strict=True):
        np.testing.assert_array_equal(weights, expected)
    assert single[1] == grouped[1]


@pytest.mark.parametrize("recipe", RECIPES)
def test_any_recipe_is_compiled(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = TrainOptions(**{**PLAIN.model_dump(), **RECIPES[recipe]})
    plain, compiled = trained(False, options=options), trained(True, options=options, together=TOGETHER)
    for expected, weights in zip(plain[0], compiled[0], strict=True):
        np.testing.assert_allclose(weights, expected, rtol=1e-3, atol=1e-4)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("together", [0, TOGETHER], ids=["one by one", "in groups"])
def test_a_model_that_xla_does_not_compile_is_trained_without(
    together: int, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, refused = trained(False, Unknown()), trained(True, Unknown(), together=together)
    for expected, weights in zip(plain[0], refused[0], strict=True):
        np.testing.assert_array_equal(weights, expected)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("xla: the model is trained without, as XLA does not compile it: InvalidArgumentError in ")
    assert "PyFunc" in line


@pytest.mark.parametrize("name", ["cnn", "resnet", "cnn_dropout", "cnn_batchnorm"])
def test_layers_that_sum_over_replicas_are_found(name: str) -> None:
    model = build_model(name, (32, 32, 3), 10, "float32")
    outer = keras.Sequential([layers.Input((32, 32, 3)), model])
    assert waits_for_replicas(model) == waits_for_replicas(outer) == (name == "cnn_batchnorm")


TWO_REPLICAS = """
import json, keras, numpy, tensorflow as tf
from functools import partial
from keras import layers
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from kfp_image_classification.components.train.worker.losses import Objective
from kfp_image_classification.components.train.worker.optimizers import FusedAdam
from kfp_image_classification.components.train.worker.steps import build_train_steps, collective_sum

random = numpy.random.default_rng(0)
pixels, labels = random.integers(0, 256, (32, 8, 8, 1), numpy.uint8), random.integers(0, 3, 32)

def trained(with_xla):
    keras.utils.set_random_seed(0)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="relu"),
                                  layers.BatchNormalization(), layers.Flatten(), layers.Dense(3)])
        optimizer = FusedAdam()
        optimizer.build(model.trainable_variables)
        optimizer.average_also(model.non_trainable_variables)
    total = partial(collective_sum, strategy)
    train_steps = build_train_steps(strategy, model, optimizer, Objective([1] * 3), 8, total, with_xla)
    batches = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(8))
    train_steps(iter(batches), tf.constant(4), tf.zeros(1))
    return [[part.numpy().tolist() for part in variable.value.values] for variable in model.variables]

print(json.dumps([trained(False), trained(True)]))
"""


def test_replicas_of_one_worker_are_compiled_up_to_their_sum() -> None:
    """Two devices in one process, as a worker with two GPUs has: TensorFlow must not be started before it is told."""
    answer = subprocess.run([sys.executable, "-c", TWO_REPLICAS], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    plain, compiled = json.loads(answer.stdout.splitlines()[-1])
    assert "trained without" not in answer.stdout
    for expected, weights in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(weights[0], weights[1], err_msg="the replicas are not in step")
