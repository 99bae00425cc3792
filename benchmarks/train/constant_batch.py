"""The bound: a process that trains on one batch, with no input and nobody to talk to. Prints the rate of each call,
and how many values are trained, and how many are statistics of normalisation layers.

Its optimizer is Keras' Adam, as everybody has it, or ours.
"""

import argparse
import math
import time

import keras
import tensorflow as tf

from kfp_image_classification.components.contracts.preprocessing import model_input
from kfp_image_classification.components.train.worker.models import build_model
from kfp_image_classification.components.train.worker.optimizers import FusedAdam


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--shape", type=int, nargs=3, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--our-adam", action="store_true")
    parser.add_argument("--xla", action="store_true", help="the step is one program of XLA")
    parser.add_argument("--compute-dtype", default="float32")
    parser.add_argument("--wait", action="store_true", help="when it is ready, until a line comes")
    arguments = parser.parse_args()
    model = build_model(arguments.model, tuple(arguments.shape), 10, arguments.compute_dtype)
    optimizer = FusedAdam() if arguments.our_adam else keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    pixels = tf.cast(tf.random.uniform([arguments.batch_size, *arguments.shape], 0, 256, tf.int32), tf.uint8)
    labels = tf.random.uniform([arguments.batch_size], 0, 10, tf.int64)

    @tf.function(jit_compile=arguments.xla)
    def step() -> None:
        with tf.GradientTape() as tape:
            logits = tf.cast(model(model_input(pixels), training=True), tf.float32)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    @tf.function
    def train(steps: tf.Tensor) -> None:
        for _ in tf.range(steps):
            step()

    statistics = [one for one in model.non_trainable_variables if one.dtype == "float32"]
    print("values", *(sum(math.prod(one.shape) for one in of) for of in (model.trainable_variables, statistics)))
    steps = max(5, 100 * 64 // arguments.batch_size)
    train(tf.constant(steps))
    print("ready", flush=True)
    if arguments.wait:
        input()
    ends = time.monotonic() + arguments.seconds
    while time.monotonic() < ends:
        started = time.monotonic()
        train(tf.constant(steps))
        print(f"rate {steps * arguments.batch_size / (time.monotonic() - started)}", flush=True)


if __name__ == "__main__":
    main()
