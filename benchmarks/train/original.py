"""One worker trained as the replaced system trains: everything in memory, DATA sharding, Keras' own `fit`.

Run with TF_USE_LEGACY_KERAS=1, as Keras 3's `fit` does not work with several workers. Prints the rate of each epoch,
and where there are held-out images, the accuracy on them in the end.
"""

import argparse
import os
import time

import numpy as np
import tensorflow as tf


class Rate(tf.keras.callbacks.Callback):
    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images
        self.started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        print(f"rate {self.images / (time.monotonic() - self.started)}", flush=True)


def layers_of(model: str, shape: tuple[int, ...]) -> list[tf.keras.layers.Layer]:
    layers = tf.keras.layers
    head = [layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dense(10, activation="softmax")]
    if model == "cnn_small":
        return [layers.Input(shape), layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(2), *head]
    return [
        layers.Input(shape),
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(64, 3, activation="relu"),
        *head,
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True, help="steps an epoch")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tf.keras.utils.set_random_seed(arguments.seed)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    data = np.load(arguments.data)
    global_batch = arguments.batch_size * strategy.num_replicas_in_sync

    def scale(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cast(image, tf.float32) / 255, label

    with strategy.scope():
        images = tf.data.Dataset.from_tensor_slices((data["pixels"], data["labels"]))
        batches = images.map(scale).cache().shuffle(10_000).batch(global_batch).repeat()
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        model = tf.keras.Sequential(layers_of(arguments.model, data["pixels"].shape[1:]))
        model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        batches.with_options(options),
        epochs=arguments.epochs,
        steps_per_epoch=arguments.steps,
        verbose=0,
        callbacks=[Rate(arguments.steps * global_batch)],
    )
    if "held_out_pixels" in data:
        logits = model(data["held_out_pixels"].astype("float32") / 255)
        print(f"accuracy {np.mean(np.argmax(logits, axis=-1) == data['held_out_labels'])}", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
