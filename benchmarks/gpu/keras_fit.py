"""Keras' own `fit` on one GPU, with XLA where Keras thinks so. Prints the rate of each epoch but the first two, after
which it waits for a line.
"""

import argparse
import time

import keras
import numpy as np
import tensorflow as tf

from kfp_image_classification.components.contracts.preprocessing import model_input
from kfp_image_classification.components.train.worker.models import build_model

WARM_UP = 2


class Rates(keras.callbacks.Callback):
    """Prints the images a second of each epoch."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self._images = images

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        if epoch == WARM_UP:
            print("ready", flush=True)
            input()
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        if epoch >= WARM_UP:
            print(f"rate {self._images / (time.monotonic() - self._started)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--compute-dtype", default="float32")
    arguments = parser.parse_args()
    with np.load(arguments.data) as data:
        pixels, labels = data["pixels"], data["labels"]
    model = build_model(arguments.model, pixels.shape[1:], 10, arguments.compute_dtype)
    model.compile(keras.optimizers.Adam(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = (
        tf.data.Dataset.from_tensor_slices((pixels, labels))
        .shuffle(10_000)
        .batch(arguments.batch_size, drop_remainder=True)
        .map(lambda some, of: (model_input(some), of), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    images = len(labels) // arguments.batch_size * arguments.batch_size
    model.fit(batches, epochs=arguments.epochs + WARM_UP, verbose=0, callbacks=[Rates(images)])


if __name__ == "__main__":
    main()
