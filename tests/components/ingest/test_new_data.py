"""A folder, or a list, that has grown since the deployed model was trained: what is new is counted, and not opened."""

import logging
from pathlib import Path

import pytest
from kfp import dsl

from kfp_image_classification.components.contracts.deployed_model import DeployedModel
from kfp_image_classification.components.contracts.evaluation import NoChampion
from kfp_image_classification.components.ingest import find_new_data
from kfp_image_classification.components.ingest.new_data import NewData, new_data
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.step.errors import InvalidInput

FINGERPRINT = "0123456789abcdef"


def options(dataset: str) -> IngestOptions:
    return IngestOptions(dataset=dataset, validation_share=0.1, workers=1, seed=0)


def found(dataset: str, deployed: DeployedModel | None) -> NewData:
    return new_data(options(dataset), deployed, logging.getLogger("test"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten files of two classes, none of which is an image: nobody opens them."""
    for number in range(10):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "images"


@pytest.mark.parametrize("form", ["image_folder", "image_list"])
def test_source_that_has_grown(folder: Path, form: str) -> None:
    dataset = f"image_folder:{folder}"
    if form == "image_list":
        lines = [f"{path},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
        (folder.parent / "list.csv").write_text("\n".join(["image,label", *lines]))
        dataset = f"image_list:{folder.parent / 'list.csv'}"
    for known, new in ((10, 0), (7, 3), (12, 0)):
        deployed = DeployedModel(dataset=dataset, dataset_fingerprint=FINGERPRINT, dataset_images=known)
        assert found(dataset, deployed) == NewData(new, known, FINGERPRINT)


def test_what_the_model_does_not_say_is_not_guessed(folder: Path) -> None:
    deployed = DeployedModel(dataset_fingerprint=FINGERPRINT)
    assert found(f"image_folder:{folder}", deployed) == NewData(0, 0, FINGERPRINT)


def test_without_a_deployed_model_all_is_new(folder: Path) -> None:
    assert found(f"image_folder:{folder}", None) == NewData(10, 0, "")
    assert found("mnist_5k", None) == NewData(5000, 0, "")


def test_data_set_of_a_catalogue_does_not_grow() -> None:
    deployed = DeployedModel(dataset="cifar10", dataset_images=60_000)
    assert found("cifar10", deployed) == NewData(0, 60_000, "")


def test_source_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a folder"):
        found(f"image_folder:{tmp_path / 'gone'}", DeployedModel(dataset_images=1))


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        (NoChampion(), NewData(10, 0, "")),
        (NoChampion(reason="its files cannot be reached", holds_back=True), NewData(0, 0, "")),
        (DeployedModel(model_uri="/m", dataset_images=4), NewData(6, 4, "")),
    ],
)
def test_step(folder: Path, note: NoChampion | DeployedModel, expected: NewData) -> None:
    deployed = dsl.Artifact(uri=str(folder.parent / "found"))
    Path(deployed.path).write_text(note.model_dump_json())
    assert find_new_data.python_func(deployed=deployed, dataset=f"image_folder:{folder}") == expected
