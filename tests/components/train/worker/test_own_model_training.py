"""A user's own model, with settings of its own, in a real training: from the current folder to the served files."""

from pathlib import Path

import pytest
from log_lines import LogLines

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.run_job import run_job

CODE = """
import keras
from keras import layers

def build(image_shape, classes):
    return keras.Sequential([layers.Input(image_shape), layers.Flatten(), layers.Dense(classes)])

def no_logits(image_shape, classes):
    return keras.Sequential([layers.Input(image_shape), layers.Flatten(), layers.Dense(classes, "softmax")])
"""


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainOptions:
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers" / "models.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return TrainOptions(model_type="cnn", workers=2, epochs=9, batch_size=32, learning_rates="0:1e-3", seed=0)


def job(options: TrainOptions, model: str, digits: Dataset, directory: Path) -> TrainingJob:
    own = TrainOptions(**{**options.model_dump(), "model_type": model})
    return TrainingJob(options=own, dataset=str(digits.directory), directory=str(directory / "job"))


def test_own_model_is_trained_and_exported(options: TrainOptions, digits: Dataset, tmp_path: Path) -> None:
    name = "flowers.models:build:epochs=2,learning_rates=cosine:3e-3"
    result = run_job(job(options, name, digits, tmp_path), tmp_path / "model", LogLines().logger)
    assert result.card.model_type == name
    assert result.card.onnx_sha256
    assert result.outcome[0] > 0.8
    assert [row["epoch"] for row in result.history] == [1, 2]


@pytest.mark.slow
def test_model_without_logits_ends_the_job(options: TrainOptions, digits: Dataset, tmp_path: Path) -> None:
    log = LogLines()
    with pytest.raises(StageFailed, match="answers probabilities; it must answer logits"):
        run_job(job(options, "flowers.models:no_logits", digits, tmp_path), tmp_path / "model", log.logger)
    assert "Traceback" not in log.text
    assert "restart" not in log.text
