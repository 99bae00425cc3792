"""Where weights can come from, on a disk and in a bucket; and what is refused, with which words."""

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest

from kfp_image_classification.components.contracts.model_card import KERAS_MODEL, MODEL_CARD, ModelCard
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.weight_source import find_weights

CARD = ModelCard(
    model_type="resnet:seed=3",
    parameters=1,
    image_shape=(32, 32, 3),
    class_names=["a", "b"],
    dataset="flowers",
    dataset_fingerprint="f",
    options={},
    run="r7",
    git_revision="",
    versions={},
    examples=[],
)
ZIP, HDF5 = b"PK\x03\x04...", b"\x89HDF\r\n\x1a\n..."


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A Model artifact with two versions, of which the newer one's card counts."""
    folder = tmp_path / "model"
    for version, card in ((2, CARD.model_copy(update={"run": "r6"})), (10, CARD)):
        (folder / str(version) / MODEL_CARD).parent.mkdir(parents=True)
        (folder / str(version) / MODEL_CARD).write_text(card.model_dump_json())
    (folder / KERAS_MODEL).write_bytes(ZIP)
    return folder


def test_model_artifact(model: Path) -> None:
    found = find_weights("weights", str(model))
    assert (found.content, found.card, found.outputs) == (ZIP, CARD, 2)
    assert len(found.sha256) == 64


@pytest.mark.usefixtures("s3_server")
def test_model_artifact_in_a_bucket(model: Path) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="models")
    for path in (path for path in model.rglob("*") if path.is_file()):
        s3.upload_file(str(path), "models", f"run/model/{path.relative_to(model)}")
    # As Kubeflow Pipelines writes the address of its own store, too.
    for scheme in ("s3", "minio"):
        found = find_weights("initial_model", f"{scheme}://models/run/model")
        assert (found.content, found.card) == (ZIP, CARD)
    assert find_weights("weights", f"s3://models/run/model/{KERAS_MODEL}").card is None
    with pytest.raises(InvalidInput, match="^weights = 's3://models/none': .* cannot be read: it is not there"):
        find_weights("weights", "s3://models/none")


@pytest.mark.parametrize(
    ("name", "content"), [("a.keras", ZIP), ("a.h5", HDF5), ("a.weights.h5", HDF5)], ids=["keras", "h5", "weights"]
)
def test_file_alone(name: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    for source in (name, str(tmp_path / name)):
        found = find_weights("weights", source)
        assert (found.name, found.content, found.card, found.outputs) == (name, content, None, None)


def test_number_of_classes_of_a_whole_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as parts:
        parts.writestr("config.json", json.dumps({"config": {"layers": [{}, {"config": {"units": 7}}]}}))
    assert find_weights("initial_model", str(tmp_path / "a.keras")).outputs == 7


def broken(model: Path) -> SimpleNamespace:
    (model / "no_card").mkdir()
    (model / "no_card" / KERAS_MODEL).write_bytes(ZIP)
    (model / "empty").mkdir()
    (model / "text.keras").write_text("weights")
    (model / "pickle.h5").write_bytes(b"\x80\x04K\x01.")
    return SimpleNamespace(folder=model)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "nothing",
            "/nothing/model.keras cannot be read: No such file or directory; give the folder of an earlier run",
        ),
        ("empty", "/empty/model.keras cannot be read: No such file or directory; give the folder of an earlier"),
        ("nothing.keras", "/nothing.keras cannot be read: No such file or directory; give the folder of an earlier"),
        ("no_card", "is no Model artifact: there is no assets.extra/model.json in a numbered folder"),
        ("text.keras", "text.keras is damaged, or no file of Keras; write it with model.save or save_weights"),
        ("pickle.h5", "pickle.h5 is damaged, or no file of Keras; write it with model.save or save_weights"),
    ],
)
def test_what_is_refused(name: str, problem: str, model: Path) -> None:
    source = str(broken(model).folder / name)
    with pytest.raises(InvalidInput, match=f"^weights = '{source}': .*{problem}"):
        find_weights("weights", source)
