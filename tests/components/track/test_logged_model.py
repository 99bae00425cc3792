import pytest
from mlflow.utils.validation import _validate_logged_model_name

from kfp_image_classification.components.track.logged_model import name_for_mlflow


@pytest.mark.parametrize(
    "model", ["cnn", "cnn:learning_rates=warmup:0.05 cosine:2e-3", "a.b:build", """it's "100%/5\""""]
)
def test_any_model_has_a_name_that_mlflow_takes(model: str) -> None:
    _validate_logged_model_name(name_for_mlflow(model))


def test_a_variants_name_stays() -> None:
    assert name_for_mlflow("cnn_small") == "cnn_small"
