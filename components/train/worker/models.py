"""The model variants: a function each, with the name that users write in `models`.

Each builds an uncompiled Keras model from images in 0..1, [n, height, width, channels], to logits, [n, classes]. What
the step must know of a variant without loading TensorFlow is in `components/train/variants.py`.

The first three are the architectures of the system that this package replaces, chapter 9 of Yuan Tang's "Distributed
Machine Learning Patterns" (Manning, 2023), with logits in place of the softmax.
"""

from collections.abc import Callable
from functools import partial

import keras
from keras import Sequential, layers

from kfp_image_classification.components.contracts.preprocessing import ImageShape
from kfp_image_classification.components.train.worker.backbones import KERAS_BACKBONES, build_backbone
from kfp_image_classification.components.train.worker.own_models import build_own_model

BuildModel = Callable[[ImageShape, int], keras.Model]


def build_model(name: str, image_shape: ImageShape, classes: int, compute_dtype: str) -> keras.Model:
    """Builds a model whose layers compute in float32, or in bfloat16; its weights are float32 either way.

    Args:
        name: A variant, or the import path of a user's function.
        image_shape: (height, width, channels) of the images.
        classes: How many there are.
        compute_dtype: `float32` or `bfloat16`.

    Raises:
        InvalidInput: When a user's function cannot be used.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if compute_dtype == "bfloat16" else "float32")
    try:
        if name in MODELS:
            return MODELS[name](image_shape, classes)
        return build_own_model(name, image_shape, classes)
    finally:
        keras.config.set_dtype_policy(before)


def cnn(image_shape: ImageShape, classes: int) -> keras.Model:
    """Three convolutions and a dense layer."""
    return Sequential(
        [
            layers.Input(image_shape),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(classes),
        ],
        name="cnn",
    )


def cnn_small(image_shape: ImageShape, classes: int) -> keras.Model:
    """One convolution and a dense layer: little to compute, much to send; what the benchmarks measure with."""
    return Sequential(
        [
            layers.Input(image_shape),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(classes),
        ],
        name="cnn_small",
    )


def resnet(image_shape: ImageShape, classes: int) -> keras.Model:
    """A small residual network for colour images: three groups of blocks with 16, 32 and 64 channels.

    After He et al., "Identity Mappings in Deep Residual Networks" (2016): normalisation and activation before each
    convolution.
    """

    def normalized(x: keras.KerasTensor) -> keras.KerasTensor:
        # Each worker normalises by its own batch, as data-parallel training usually does: synchronising costs two
        # rounds of messages a layer. The moving statistics are averaged all the same (see `gradients.py`).
        return layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))

    def block(x: keras.KerasTensor, channels: int, strides: int) -> keras.KerasTensor:
        before = normalized(x)
        y = layers.Conv2D(channels, 3, strides, padding="same", use_bias=False)(before)
        y = layers.Conv2D(channels, 3, padding="same", use_bias=False)(normalized(y))
        if x.shape[-1] != channels:
            x = layers.Conv2D(channels, 1, strides, use_bias=False)(before)
        return layers.Add()([x, y])

    images = layers.Input(image_shape)
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(images)
    for channels, strides in ((16, 1), (32, 2), (64, 2)):
        x = block(x, channels, strides)
    features = layers.GlobalAveragePooling2D()(normalized(x))
    return keras.Model(images, layers.Dense(classes)(features), name="resnet")


def cnn_dropout(image_shape: ImageShape, classes: int) -> keras.Model:
    """`cnn` with half of the features dropped before the last convolution."""
    return Sequential(
        [
            layers.Input(image_shape),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.5),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(classes),
        ],
        name="cnn_dropout",
    )


def cnn_batchnorm(image_shape: ImageShape, classes: int) -> keras.Model:
    """`cnn` with batch normalisation and a sigmoid after the first two convolutions."""

    def batch_normalization() -> keras.Layer:
        # Statistics over the global batch: without `synchronized`, each worker would keep its own. The default
        # momentum of 0.99 averages over more steps than a short training has.
        return layers.BatchNormalization(momentum=0.9, synchronized=True)

    return Sequential(
        [
            layers.Input(image_shape),
            layers.Conv2D(32, 3, activation="relu"),
            batch_normalization(),
            layers.Activation("sigmoid"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            batch_normalization(),
            layers.Activation("sigmoid"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(classes),
        ],
        name="cnn_batchnorm",
    )


MODELS: dict[str, BuildModel] = {
    **{build.__name__: build for build in (cnn, cnn_small, resnet, cnn_dropout, cnn_batchnorm)},
    **{name: partial(build_backbone, name) for name in KERAS_BACKBONES},
}
