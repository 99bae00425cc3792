"""What an export does not need, and what it needs and is told before the training that it follows."""

import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import keras
import pytest
import tensorflow as tf
from skips import Need, skip

from kfp_image_classification.components.cluster.images import VERSION
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.contracts.model_card import read_model_card
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.worker.export import check_export, export_model
from kfp_image_classification.components.train.worker.models import build_model


@pytest.fixture
def model(digits: Dataset) -> keras.Model:
    return build_model("cnn", digits.manifest.image_shape, len(digits.manifest.class_names), "float32")


def test_package_on_pythonpath_alone_is_enough(
    model: keras.Model,
    digits: Dataset,
    train_options: TrainOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has no metadata there, and neither has TensorFlow under its own name where it is tensorflow-cpu, say."""
    found = Distribution.from_name

    def without(name: str) -> Distribution:
        if name in ("kfp-image-classification", "tensorflow"):
            raise PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(Distribution, "from_name", without)
    job = TrainingJob(options=train_options, dataset=str(digits.directory), directory=str(tmp_path))
    export_model(model, job, digits, tmp_path / "model")
    assert read_model_card(tmp_path / "model").versions == {
        "python": sys.version.split()[0],
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "kfp-image-classification": VERSION,
    }


def test_no_room_for_the_model(model: keras.Model, tmp_path: Path) -> None:
    check_export(model, tmp_path)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True, check=False
    ).returncode:
        skip(Need.SYSTEM, "cannot mount a small disk here (needs root)")
    try:
        with pytest.raises(StageFailed, match=f"^{tmp_path}: 1.0 MiB are free, and the trained model takes 1.1"):
            check_export(model, tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_missing_packages_for_onnx_are_told(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_export(model, tmp_path)
    assert capsys.readouterr().out == ""
    for name in ("onnxruntime", "tf2onnx"):
        monkeypatch.setitem(sys.modules, name, None)
    check_export(model, tmp_path)
    assert capsys.readouterr().out.startswith("no ONNX model will be written: onnxruntime, tf2onnx not installed here;")
