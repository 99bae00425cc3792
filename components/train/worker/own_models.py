"""Models of users: a function in a package of theirs, named by its import path."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfp_image_classification.components.contracts.preprocessing import ImageShape
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.worker.failure import in_short
from kfp_image_classification.components.train.worker.stateless_model import logits_with, variables_of


def build_own_model(path: str, image_shape: ImageShape, classes: int) -> keras.Model:
    """Imports a function and builds its model.

    Args:
        path: `MODULE:FUNCTION`; the module is in an installed package, or in the current folder.
        image_shape: (height, width, channels) of the images.
        classes: How many there are.

    Raises:
        InvalidInput: When it cannot be imported, fails, or returns something else than a model with logits.
    """
    build = _imported(path)
    try:
        model = build(image_shape, classes)
    except Exception as error:  # it is somebody else's code
        raise InvalidInput(
            f"model_type = {path!r}: failed for images of {image_shape} and {classes} classes: {in_short(error)}"
        ) from error
    _check(path, model, image_shape, classes)
    return model


def _imported(path: str) -> Callable[[ImageShape, int], Any]:
    module, _, name = path.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last: no file in it stands in for an installed package
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # it is somebody else's code
        raise InvalidInput(
            f"model_type = {path!r}: cannot be imported: {in_short(error)}; the module must be installed "
            f"where the workers run (on a cluster, in worker_image), or lie in their folder, here {Path.cwd()}"
        ) from error
    if not callable(function):
        raise InvalidInput(f"model_type = {path!r}: is no function, but {type(function).__name__}")
    build: Callable[[ImageShape, int], Any] = function
    return build


def _check(path: str, model: Any, image_shape: ImageShape, classes: int) -> None:
    if not isinstance(model, keras.Model):
        raise InvalidInput(f"model_type = {path!r}: must return a Keras model, not {type(model).__name__}")
    images = np.random.default_rng(0).uniform(size=(2, *image_shape)).astype(np.float32)
    try:
        answer = model(images, training=False)
    except Exception as error:  # as above
        raise InvalidInput(
            f"model_type = {path!r}: its model does not take images of {image_shape}, float32 from 0 to 1: "
            f"{in_short(error)}"
        ) from error
    shape = getattr(answer, "shape", None)
    if shape is None or tuple(shape) != (2, classes):
        raise InvalidInput(
            f"model_type = {path!r}: its model must answer logits, a number for each of the {classes} classes; for 2 "
            f"images it answered {type(answer).__name__ if shape is None else tuple(shape)}"
        )
    numbers, again = (
        keras.ops.convert_to_numpy(keras.ops.cast(one, "float32")) for one in (answer, model(images, training=False))
    )
    if not np.allclose(numbers, again, rtol=0.01, atol=0.01):
        raise InvalidInput(
            f"model_type = {path!r}: its model answers otherwise when it is asked again; nothing in it may be random "
            "with training = False"
        )
    # bfloat16 has but three digits.
    if classes > 1 and (numbers >= 0).all() and np.allclose(numbers.sum(axis=1), 1, atol=0.02):
        raise InvalidInput(
            f"model_type = {path!r}: its model answers probabilities; it must answer logits: leave the softmax away"
        )
    if unknown := _variables_beside(model, images):
        raise InvalidInput(
            f"model_type = {path!r}: Keras does not know variables of its model ({', '.join(unknown)}), and would "
            "neither train nor save them; make them with self.add_weight, or as keras.Variable"
        )
    try:
        keras.saving.serialize_keras_object(model)
    except Exception as error:  # as above
        said = " ".join(str(error).strip().partition("\n\n")[0].split())
        raise InvalidInput(
            f"model_type = {path!r}: its model could not be saved after the training: {type(error).__name__}: {said}"
        ) from error


def _variables_beside(model: keras.Model, images: Any) -> list[str]:
    """Names of what the model reads beside the variables that Keras has listed."""
    values = [tf.TensorSpec(variable.shape, variable.dtype) for variable in variables_of(model)]
    answer = tf.function(lambda images, *values: logits_with(values, model, images))
    return [variable.name for variable in answer.get_concrete_function(images, *values).variables]
