import pytest

from kfp_image_classification.components.train.learning_rate import LearningRateSteps


def test_steps_of_the_original_system() -> None:
    schedule = LearningRateSteps.parse("0:1e-3 0.3:1e-4 0.7:1e-5")
    assert [schedule.at(epoch, 10) for epoch in range(10)] == [1e-3] * 3 + [1e-4] * 4 + [1e-5] * 3


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
    ],
)
def test_bad_schedules(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearningRateSteps.parse(text)
