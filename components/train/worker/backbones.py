"""Backbones of keras.applications under a head of ours, for which there are weights of ImageNet.

A model takes images in 0..1, as all models here do: the scaling that its ImageNet weights were trained with is a layer
of it. The weights see three channels, so a grey image is shown to them as red, green and blue alike.

Normalisation layers are as in `models.py`: each worker normalises by its own batch, and the moving statistics are
averaged in every step (see `gradients.py`). They follow the last steps closely, as there: a fine-tuning of a few
hundred steps would never reach the statistics of MobileNet's own momentum, 0.999.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import applications, layers

from kfp_image_classification.components.contracts.preprocessing import ImageShape

MOMENTUM = 0.9
DROPOUT = 0.2
# Of ImageNet's images in 0..1: red, green, blue.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """An architecture of keras.applications.

    Attributes:
        build: Its function there.
        imagenet_file: How keras.applications names its weights without the top, in the folder `models` of KERAS_HOME.
        scale: What images in 0..1 are multiplied by, for all channels or for each.
        offset: What is added then.
        has_scaling: Whether it would scale by itself, from 0..255.
    """

    build: Callable[..., keras.Model]
    imagenet_file: str
    scale: float | Sequence[float]
    offset: float | Sequence[float]
    has_scaling: bool = True

    def features(self, height: int, width: int, weights: str | None = None) -> keras.Model:
        """Builds it without its top: from scaled images to what it sees in them.

        Args:
            height: Of the images, in pixels.
            width: Likewise.
            weights: `imagenet` downloads them, where they are not there yet; None for random ones.
        """
        options: dict[str, Any] = {"include_preprocessing": False} if self.has_scaling else {}
        return self.build(include_top=False, weights=weights, input_shape=(height, width, 3), **options)


def _portable(layer: keras.Layer) -> keras.Layer:
    """The same layer, for any server: of a convolution with a group a channel, TensorFlow has a kernel of its own.

    Keras computes one with groups by XLA, which neither ONNX nor every TensorFlow Serving can.
    """
    if not isinstance(layer, layers.Conv2D) or layer.groups == 1:
        return layer.__class__.from_config(layer.get_config())
    return layers.DepthwiseConv2D(layer.kernel_size, layer.strides, layer.padding, name=layer.name)


_TO_MINUS_ONE_TO_ONE = (2.0, -1.0)
_BY_MEAN_AND_DEVIATION = (
    [1 / deviation for deviation in DEVIATION],
    [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)],
)
KERAS_BACKBONES = {
    "mobilenet_v3_small": Backbone(
        applications.MobileNetV3Small, "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5", *_TO_MINUS_ONE_TO_ONE
    ),
    "efficientnet_v2_b0": Backbone(
        applications.EfficientNetV2B0, "efficientnetv2-b0_notop.h5", *_BY_MEAN_AND_DEVIATION
    ),
    "resnet50_v2": Backbone(
        applications.ResNet50V2,
        "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        *_TO_MINUS_ONE_TO_ONE,
        has_scaling=False,
    ),
    "convnext_tiny": Backbone(applications.ConvNeXtTiny, "convnext_tiny_notop.h5", *_BY_MEAN_AND_DEVIATION),
}


def build_backbone(name: str, image_shape: ImageShape, classes: int) -> keras.Model:
    """Builds a model: scaling, backbone, the mean over the image, and a dense layer.

    Args:
        name: One of `KERAS_BACKBONES`.
        image_shape: (height, width, channels) of the images; one channel, or three.
        classes: How many there are.
    """
    backbone = KERAS_BACKBONES[name]
    images = layers.Input(image_shape)
    colours = images if image_shape[2] == 3 else layers.Concatenate()([images] * 3)
    # In float32 also where layers compute in bfloat16, which has but three digits.
    scaled = layers.Rescaling(backbone.scale, backbone.offset, dtype="float32")(colours)
    features = keras.models.clone_model(backbone.features(*image_shape[:2]), clone_function=_portable)
    for layer in features.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = MOMENTUM
    seen = layers.Dropout(DROPOUT)(layers.GlobalAveragePooling2D()(features(scaled)))
    return keras.Model(images, layers.Dense(classes)(seen), name=name)
