import pytest

from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.class_weights import class_weights, parse_class_weights

NAMES, COUNTS = ["cat", "dog", "axolotl"], [60, 30, 10]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("equal", [1, 1, 1]),
        ("balanced", [100 / 180, 100 / 90, 100 / 30]),
        ('{"cat": 1, "dog": 1}', [1, 1, 1]),
        ('{"axolotl": 11}', [0.5, 0.5, 5.5]),
    ],
)
def test_the_mean_over_the_images_is_1(text: str, expected: list[float]) -> None:
    weights = class_weights(text, NAMES, COUNTS)
    assert weights == pytest.approx(expected)
    assert sum(weight * count for weight, count in zip(weights, COUNTS, strict=True)) == pytest.approx(100)


def test_balanced_with_a_class_that_has_no_training_image() -> None:
    assert class_weights("balanced", NAMES, [30, 10, 0]) == pytest.approx([2 / 3, 2, 0])


def test_class_that_is_not_there() -> None:
    with pytest.raises(InvalidInput, match=r"has no class 'cow'; its classes are cat, dog, axolotl"):
        class_weights('{"cow": 2}', NAMES, COUNTS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected equal, balanced, or a JSON object"),
        ("fair", "expected equal, balanced"),
        ("{}", "expected equal, balanced"),
        ("[1, 2]", "expected equal, balanced"),
        ('{"cat": 0}', "'cat' must be a number above 0"),
        ('{"cat": "2"}', "'cat' must be a number above 0"),
        ('{"cat": true}', "'cat' must be a number above 0"),
        ('{"cat": NaN}', "'cat' must be a number above 0"),
        ('{"cat": Infinity}', "'cat' must be a number above 0"),
    ],
)
def test_bad_weights(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_class_weights(text)
