"""The optimizer against Keras' own, on the same gradients."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfp_image_classification.components.train.worker.optimizers import FusedAdam, FusedMomentum, RateOfStep

TWO_REPLICAS = """
import json, keras, numpy, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from kfp_image_classification.components.train.worker.optimizers import FusedAdam
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    weight = keras.Variable(numpy.ones(3, numpy.float32))
    optimizer = FusedAdam()
    optimizer.build([weight])

def step():
    number = tf.distribute.get_replica_context().replica_id_in_sync_group
    optimizer.apply([tf.fill([3], tf.cast(number, tf.float32) + 1)], [weight])

tf.function(lambda: strategy.run(step))()
momentum = next(variable for variable in optimizer.variables if "momentum" in variable.path)
print(json.dumps([[part.numpy().tolist() for part in of.value.values] for of in (weight, momentum)]))
"""


def test_moves_weights_as_keras_adam_does() -> None:
    random = np.random.default_rng(0)
    start = random.normal(size=(7, 5)).astype(np.float32)
    optimizers = [keras.optimizers.Adam(), FusedAdam()]
    weights = [keras.Variable(start), keras.Variable(start)]
    for step in range(50):
        gradient = tf.constant(random.normal(loc=1, size=start.shape).astype(np.float32))
        for optimizer, weight in zip(optimizers, weights, strict=True):
            optimizer.learning_rate = 1e-2 if step < 25 else 1e-3
            optimizer.apply([gradient], [weight])
    theirs, ours = (weight.numpy() for weight in weights)
    assert np.abs(theirs - start).mean() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    for theirs, ours in zip(*(optimizer.variables for optimizer in optimizers), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-6, err_msg=ours.path)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (FusedAdam(weight_decay=0.1), keras.optimizers.AdamW(weight_decay=0.1)),
        (FusedMomentum(), keras.optimizers.SGD(momentum=0.9, nesterov=True)),
        (FusedMomentum(weight_decay=0.1), keras.optimizers.SGD(momentum=0.9, nesterov=True, weight_decay=0.1)),
    ],
    ids=["adamw", "sgd", "sgd with decay"],
)
def test_other_optimizers_move_weights_as_those_of_keras(
    ours: keras.optimizers.Optimizer, theirs: keras.optimizers.Optimizer
) -> None:
    random = np.random.default_rng(1)
    start, bias = random.normal(size=(7, 5)).astype(np.float32), np.ones(5, np.float32)
    weights = [[keras.Variable(start), keras.Variable(bias, name="bias")] for _ in range(2)]
    theirs.exclude_from_weight_decay(var_list=[weights[1][1]])
    rates = np.linspace(1e-2, 1e-3, 30).astype(np.float32)
    ours.learning_rate = RateOfStep(rates)
    for rate in rates:
        gradients = [tf.constant(random.normal(size=one.shape).astype(np.float32)) for one in (start, bias)]
        theirs.learning_rate = float(rate)
        for optimizer, some in zip((ours, theirs), weights, strict=True):
            optimizer.apply(gradients, some)
    for mine, keras_one in zip(*weights, strict=True):
        np.testing.assert_allclose(mine.numpy(), keras_one.numpy(), rtol=0, atol=1e-5)
    assert np.abs(weights[0][0].numpy() - start).mean() > 1e-2


@pytest.mark.parametrize(("limit", "expected"), [(0.0, [3.0, 4.0]), (10.0, [3.0, 4.0]), (2.5, [1.5, 2.0])])
def test_gradient_is_shortened_as_a_whole(limit: float, expected: list[float]) -> None:
    optimizer = FusedMomentum(learning_rate=1.0)
    optimizer.gradient_clip = limit
    pairs = [(tf.constant([3.0]), tf.Variable([0.0])), (tf.constant([4.0]), tf.Variable([0.0]))]
    clipped = [float(gradient[0]) for gradient, _ in optimizer._all_reduce_sum_gradients(pairs)]
    assert clipped == pytest.approx(expected)


def test_replicas_of_one_worker_stay_equal() -> None:
    """Two devices in one process, as a worker with two GPUs has: TensorFlow must not be started before it is told."""
    answer = subprocess.run([sys.executable, "-c", TWO_REPLICAS], capture_output=True, text=True, check=True)
    weights, momentums = json.loads(answer.stdout)
    # The sum of both replicas' gradients is 3; Adam's first step is the learning rate, its first moment a tenth.
    np.testing.assert_allclose(weights, [[0.999] * 3] * 2, rtol=1e-6)
    np.testing.assert_allclose(momentums, [[0.3] * 3] * 2, rtol=1e-6)
