"""The model variants. A new one is a function with `@model(...)` over it; everything else finds it by its name.

Each builds an uncompiled Keras model from images in 0..1, [n, height, width, channels], to logits, [n, classes]. Keras
is imported inside, so that names can be listed and checked without loading TensorFlow.

The first three are the architectures of the system that this package replaces, chapter 9 of Yuan Tang's "Distributed
Machine Learning Patterns" (Manning, 2023), with logits in place of the softmax.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from components.errors import InvalidInput

if TYPE_CHECKING:
    import keras

ImageShape = tuple[int, int, int]
BuildModel = Callable[[ImageShape, int], "keras.Model"]

MODELS: dict[str, BuildModel] = {}
_SMALLEST_SIDE: dict[str, int] = {}


def model(name: str, smallest_side: int) -> Callable[[BuildModel], BuildModel]:
    """Registers a model variant under a name.

    Args:
        name: What users write in `models`.
        smallest_side: Images need at least this many pixels in height and width.
    """

    def register(build: BuildModel) -> BuildModel:
        MODELS[name] = build
        _SMALLEST_SIDE[name] = smallest_side
        return build

    return register


def build_model(name: str, image_shape: ImageShape, classes: int, compute_dtype: str) -> "keras.Model":
    """Builds a variant whose layers compute in float32, or in bfloat16; its weights are float32 either way."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if compute_dtype == "bfloat16" else "float32")
    try:
        return MODELS[name](image_shape, classes)
    finally:
        keras.config.set_dtype_policy(before)


def check_model(name: str, image_shape: ImageShape) -> None:
    """Refuses images that are too small for a model.

    Raises:
        InvalidInput: With the size that is needed.
    """
    if min(image_shape[:2]) < _SMALLEST_SIDE[name]:
        raise InvalidInput(
            f"model_type = {name!r}: needs images of at least {_SMALLEST_SIDE[name]} pixels, the data set's are "
            f"{image_shape[0]} x {image_shape[1]}; set image_size = {_SMALLEST_SIDE[name]} or more"
        )


@model("cnn", smallest_side=18)
def cnn(image_shape: ImageShape, classes: int) -> "keras.Model":
    """Three convolutions and a dense layer."""
    from keras import Sequential, layers

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


@model("cnn_small", smallest_side=8)
def cnn_small(image_shape: ImageShape, classes: int) -> "keras.Model":
    """One convolution and a dense layer: little to compute, much to send; what the benchmarks measure with."""
    from keras import Sequential, layers

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


@model("resnet", smallest_side=16)
def resnet(image_shape: ImageShape, classes: int) -> "keras.Model":
    """A small residual network for colour images: three groups of blocks with 16, 32 and 64 channels.

    After He et al., "Identity Mappings in Deep Residual Networks" (2016): normalisation and activation before each
    convolution.
    """
    import keras
    from keras import layers

    def normalized(x: "keras.KerasTensor") -> "keras.KerasTensor":
        # Each worker normalises by its own batch, as data-parallel training usually does: synchronising costs two
        # rounds of messages a layer. The moving statistics are averaged all the same (see `gradients.py`).
        return layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))

    def block(x: "keras.KerasTensor", channels: int, strides: int) -> "keras.KerasTensor":
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


@model("cnn_dropout", smallest_side=18)
def cnn_dropout(image_shape: ImageShape, classes: int) -> "keras.Model":
    """`cnn` with half of the features dropped before the last convolution."""
    from keras import Sequential, layers

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


@model("cnn_batchnorm", smallest_side=18)
def cnn_batchnorm(image_shape: ImageShape, classes: int) -> "keras.Model":
    """`cnn` with batch normalisation and a sigmoid after the first two convolutions."""
    from keras import Sequential, layers

    def batch_normalization() -> "keras.Layer":
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
