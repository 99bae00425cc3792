"""What of a model a phase of the training moves: all of it, or its head alone, which is its last layer.

While the head alone is trained, the layers before it compute as they do when the model is served: normalisation uses
the statistics that came with the weights and does not change them, and nothing is dropped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from kfp_image_classification.components.step.errors import InvalidInput


@dataclass(frozen=True)
class TrainedPart:
    """What is trained.

    Attributes:
        variables: That the optimizer moves.
        statistics: That move by themselves: of normalisation, and what layers draw by.
        logits: From images, float [n, height, width, channels], to logits [n, classes], as it is in training.
        losses: What layers add to the loss, after `logits`.
    """

    variables: Sequence[keras.Variable]
    statistics: Sequence[keras.Variable]
    logits: Callable[[tf.Tensor], tf.Tensor]
    losses: Callable[[], Sequence[tf.Tensor]]


def whole(model: keras.Model) -> TrainedPart:
    """All layers."""
    return TrainedPart(
        model.trainable_variables,
        model.non_trainable_variables,
        lambda images: model(images, training=True),
        lambda: model.losses,
    )


def head_alone(model: keras.Model, architecture: str) -> TrainedPart:
    """The last layer; arguments and errors as for `split`."""
    body, head = split(model, architecture)
    return TrainedPart(
        head.trainable_variables,
        [],
        lambda images: head(tf.stop_gradient(body(images, training=False)), training=True),
        lambda: head.losses,
    )


def split(model: keras.Model, architecture: str) -> tuple[keras.Model, keras.Layer]:
    """Takes a model apart into all layers but the last, and the last one; they stay the model's own.

    Args:
        model: What `build_model` built.
        architecture: By which name, for the message.

    Raises:
        InvalidInput: When it has no such layer: a user's model may be anything.
    """
    layers = getattr(model, "layers", [])
    head = layers[-1] if layers else None
    if not isinstance(head, keras.layers.Dense) or head.output is not _only(model.outputs):
        raise InvalidInput(
            f"model_type = {architecture!r}: weights and freeze_epochs need a Sequential or functional model whose "
            "last layer is a Dense one, the head; end it with one, or leave them away"
        )
    return keras.Model(model.inputs, head.input), head


def _only(tensors: Sequence[keras.KerasTensor] | None) -> keras.KerasTensor | None:
    return tensors[0] if tensors and len(tensors) == 1 else None
