"""The training step compiled by XLA, where a model allows it: on a GPU it is three to five times as fast."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kfp_image_classification.components.train.worker.failure import in_short

Step = Callable[[tf.Tensor, tf.Tensor], Any]


def is_wanted(option: str, gpus: int) -> bool:
    """Whether the step is to be compiled; on CPUs XLA's code is three to five times slower than TensorFlow's own.

    Args:
        option: `on`, `off` or `auto`.
        gpus: That the worker computes on.
    """
    return option == "on" or (option == "auto" and gpus > 0)


def waits_for_replicas(model: keras.Model) -> bool:
    """Whether layers of a model sum over all replicas while it computes, which XLA does not do across processes."""
    return any(
        getattr(layer, "synchronized", False) or (isinstance(layer, keras.Model) and waits_for_replicas(layer))
        for layer in model.layers
    )


def compiled_part(part: Step) -> Step:
    """A part of a step as one program of XLA, for each replica its own: nothing in it may wait for others."""
    program = tf.function(part, jit_compile=True)
    # A plain function: of a tf.function, `strategy.run` would compile all replicas' parts together.
    return lambda pixels, labels: program(pixels, labels)


def refusal(variables: Sequence[keras.Variable], trial: Callable[[], object]) -> str:
    """Tries a compiled step, which waits for no other replica, and puts back what it changed.

    Tried before the training: a step that fails within it has taken a batch, and may have left its peers waiting.

    Args:
        variables: All that it may change.
        trial: Takes it, with a batch of the shape that it will have.

    Returns:
        Why XLA does not compile it; empty where it does.

    Raises:
        tf.errors.ResourceExhaustedError: When there is too little memory.
    """
    before = [variable.numpy() for variable in variables]

    @tf.function
    def once() -> None:
        trial()

    try:
        once()
    except (tf.errors.ResourceExhaustedError, MemoryError):
        raise
    # An operation that it does not know, a shape that it cannot tell, a compiler that is missing; and an error of the
    # model's own, which is seen again without XLA.
    except Exception as error:
        return in_short(error)
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
    return ""
