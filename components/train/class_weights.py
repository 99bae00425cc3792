"""How much the images of each class count in the loss."""

import json
import math
from collections.abc import Sequence

from kfp_image_classification.components.step.errors import InvalidInput

EQUAL = "equal"
BALANCED = "balanced"
EXPECTED = f'expected {EQUAL}, {BALANCED}, or a JSON object of weights by class, such as {{"cat": 2}}'


def parse_class_weights(text: str) -> dict[str, float]:
    """Reads the weights that are given one by one.

    Args:
        text: `equal`, `balanced`, or a JSON object.

    Returns:
        The object; nothing for the two words.

    Raises:
        ValueError: Saying what is wrong and what is expected.
    """
    if text in (EQUAL, BALANCED):
        return {}
    try:
        weights = json.loads(text)
    except ValueError:
        raise ValueError(EXPECTED) from None
    if not isinstance(weights, dict) or not weights:
        raise ValueError(EXPECTED)
    for name, weight in weights.items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not 0 < weight < math.inf:
            raise ValueError(f"the weight of {name!r} must be a number above 0")
    return {name: float(weight) for name, weight in weights.items()}


def class_weights(text: str, class_names: Sequence[str], counts: Sequence[int]) -> list[float]:
    """The weight of each class; of the images that there are, the mean is 1.

    So the loss, and with it the learning rate that suits, stays as large as without weights.

    Args:
        text: `equal`; `balanced`, which makes each class count as much as any other, whatever its number of images; or
            a JSON object of weights by class, in which those that it leaves out weigh 1.
        class_names: The classes.
        counts: Training images of each.

    Raises:
        InvalidInput: When a class has a weight, but is not there.
    """
    given = parse_class_weights(text)
    if unknown := [name for name in given if name not in class_names]:
        raise InvalidInput(
            f"class_weights = {text!r}: the data set has no class {', '.join(map(repr, unknown))}; "
            f"its classes are {_shown(class_names)}"
        )
    if text == BALANCED:
        weights = [1 / count if count else 0.0 for count in counts]
    else:
        weights = [given.get(name, 1.0) for name in class_names]
    mean = _mean(weights, counts)
    return [weight / mean for weight in weights]


def _mean(weights: Sequence[float], counts: Sequence[int]) -> float:
    return sum(weight * count for weight, count in zip(weights, counts, strict=True)) / sum(counts)


def _shown(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
