import numpy as np
import pytest

from kfp_image_classification.components.train.learning_rate import Schedule


def rates(text: str, epochs: int = 10, epoch_steps: int = 2) -> list[float]:
    return Schedule.parse(text).rates(epochs, epoch_steps).tolist()


def test_steps_of_the_original_system() -> None:
    expected = [1e-3] * 3 + [1e-4] * 4 + [1e-5] * 3
    assert rates("0:1e-3 0.3:1e-4 0.7:1e-5") == pytest.approx(np.repeat(expected, 2))


def test_a_step_begins_with_an_epoch() -> None:
    assert rates("0:1 0.5:0.1", epochs=3) == pytest.approx([1, 1, 1, 1, 0.1, 0.1])


def test_cosine_falls_from_its_rate_to_nothing() -> None:
    falling = rates("cosine:2")
    assert falling[0] == 2
    assert falling[10] == pytest.approx(1)
    assert sorted(falling, reverse=True) == falling
    assert 0 < falling[-1] < 0.02


def test_cosine_begins_where_the_warm_up_ends() -> None:
    warmed = rates("warmup:0.2 cosine:2")
    assert warmed[:4] == pytest.approx([0.5, 1, 1.5, 2])
    assert warmed[4] == 2
    assert warmed[12] == pytest.approx(1)


def test_steps_after_a_warm_up() -> None:
    assert rates("warmup:0.2 0:1 0.5:0.1")[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert rates("warmup:0.2 0:1 0.5:0.1")[9:11] == pytest.approx([1, 0.1])


@pytest.mark.parametrize("text", ["cosine:1e-3", "warmup:0.9 cosine:1", "warmup:0.001 0:1", "warmup:0.5 0:1"])
@pytest.mark.parametrize(("epochs", "epoch_steps"), [(1, 1), (1, 3), (7, 1)])
def test_every_step_has_a_rate_above_0(text: str, epochs: int, epoch_steps: int) -> None:
    found = rates(text, epochs, epoch_steps)
    assert len(found) == epochs * epoch_steps
    assert min(found) > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "start at 0"),
        ("fast", "SHARE:RATE"),
        ("0:1e-3,0.5:1e-4", "SHARE:RATE"),
        ("0.5:1e-3", "start at 0"),
        ("0:1e-3 0.7:1e-4 0.5:1e-5", "rise"),
        ("0:1e-3 1:1e-4", "below 1"),
        ("0:0", "above 0"),
        ("0:nan", "above 0"),
        ("0:inf", "above 0"),
        ("cosine", "SHARE:RATE pairs .* or cosine:RATE"),
        ("cosine:fast", "cosine:RATE"),
        ("cosine:0", "above 0"),
        ("cosine:-1", "above 0"),
        ("cosine:1e-3 0.5:1e-4", "or cosine:RATE"),
        ("cosine:1e-3 warmup:0.1", "before either, warmup:SHARE"),
        ("cosine:1e-3 cosine:1e-4", "or cosine:RATE"),
        ("warmup:0.1", "start at 0"),
        ("warmup:1 cosine:1e-3", "warm-up must be at least 0 and below 1"),
        ("warmup:-0.1 cosine:1e-3", "warm-up must be at least 0"),
        ("warmup:nan 0:1e-3", "warm-up must be at least 0"),
        ("warmup:0.1 warmup:0.1 0:1e-3", "SHARE:RATE"),
    ],
)
def test_bad_schedules(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule.parse(text)
