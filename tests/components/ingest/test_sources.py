import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from cases.odd_images import encoded, picture
from etils import epath
from PIL import Image
from repository import SHARED
from skips import Need, skip_unless

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import SPLITS, Dataset, SplitName
from kfp_image_classification.components.deploy.server.image_files import decode
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sharding import write_dataset
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.step.stage_log import stage_log

SHARED_DATA = SHARED / "data" / "tfds"
needs_shared_data = skip_unless(SHARED_DATA.is_dir(), Need.DATA, "no folder of prepared data sets beside this one")


def options(dataset: str, **other: object) -> IngestOptions:
    return IngestOptions(**{"dataset": dataset, "validation_share": 0.2, "workers": 1, "seed": 0, **other})


def image_folder(root: Path, classes: dict[str, int], size: tuple[int, int] = (20, 30)) -> Path:
    for label, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", size, (label * 100, index, 50)).save(root / name / f"{index}.png")
    return root


def test_built_in_digits_are_mixed_and_whole() -> None:
    source = open_source(options("mnist_5k"))
    train = source.splits["train"]
    (first,) = train.read(0, 1)
    assert isinstance(first, np.ndarray)
    assert first.shape == source.image_shape == (28, 28, 1)
    assert np.bincount(train.labels()).tolist() == [500] * 10
    assert len({*train.labels()[:50].tolist()}) > 5, "sorted by class, batches would hold one class each"


def test_folder_of_classes(tmp_path: Path) -> None:
    source = open_source(options(f"image_folder:{image_folder(tmp_path / 'd', {'cat': 6, 'dog': 4})}", image_size=16))
    assert source.class_names == ["cat", "dog"]
    assert source.image_shape == (16, 16, 3)
    assert sorted(source.splits["train"].labels()) == [0] * 6 + [1] * 4


def test_folder_with_splits(tmp_path: Path) -> None:
    image_folder(tmp_path / "train", {"cat": 6, "dog": 4})
    image_folder(tmp_path / "test", {"cat": 2, "dog": 1})
    source = open_source(options(f"image_folder:{tmp_path}"))
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 10, "test": 3}
    assert source.image_shape == (64, 64, 3)
    manifest = write_dataset(source, options(f"image_folder:{tmp_path}"), tmp_path / "out", stage_log("test"))
    assert {name: split.examples for name, split in manifest.splits.items()} == {"train": 8, "validation": 2, "test": 3}
    assert manifest.splits["test"].class_counts == [2, 1]


def test_empty_and_corrupt_images_are_named(tmp_path: Path) -> None:
    image_folder(tmp_path, {"cat": 3, "dog": 3})
    (tmp_path / "cat" / "1.png").write_bytes(b"")
    (tmp_path / "dog" / "2.png").write_bytes((tmp_path / "dog" / "1.png").read_bytes()[:40])
    asked = options(f"image_folder:{tmp_path}", validation_share=0.4)
    with pytest.raises(InvalidInput) as error:
        write_dataset(open_source(asked), asked, tmp_path / "out", stage_log("test"))
    first, second = sorted(error.value.problems)
    assert "cat/1.png is empty; replace or remove it" in first
    assert "dog/2.png is a damaged PNG, or one that was not copied to its end; replace or remove it" in second


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("no_such_data_set", r"dataset = 'no_such_data_set': Dataset no_such_data_set not found"),
        ("glue", r"dataset = 'glue': not an image classification data set: .* and has .*Text"),
        ("image_folder:/no/such/folder", r"/no/such/folder is not a folder"),
        ("image_folder:.", r"no images in ."),
    ],
)
def test_bad_data_sets(dataset: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match=message):
        open_source(options(dataset, data_dir=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_unwritable_data_dir_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder is needed")
    with pytest.raises(InvalidInput, match=r"data_dir = .*cannot be written; choose another data_dir"):
        open_source(options("mnist", data_dir=str(tmp_path / "file" / "data")))
    with pytest.raises(
        InvalidInput, match=r"data_dir = .*cannot be read \(File name too long\); choose another data_dir"
    ):
        open_source(options("mnist", data_dir="n" * 300))
    with pytest.raises(InvalidInput, match=r"n is not a folder"):
        open_source(options("image_folder:" + "n" * 300))


@needs_shared_data
@pytest.mark.parametrize(("name", "shape", "test"), [("mnist", (28, 28, 1), 10_000), ("cifar10", (32, 32, 3), 2_000)])
def test_tensorflow_datasets(name: str, shape: tuple[int, int, int], test: int) -> None:
    source = open_source(options(name, data_dir=str(SHARED_DATA)))
    assert source.image_shape == shape
    own = source.splits["test"]
    assert (len(own), len(own.labels()), int(own.labels().max())) == (test, test, 9)
    some = pickle.loads(pickle.dumps(own))
    assert [*some.read(5, 9)] == [*own.read(0, 12)][5:9], "a range is a part of the whole, in another process, too"


class StoredAsJpeg(tfds.core.GeneratorBasedBuilder):
    """Photographs in TensorFlow Datasets; the labels of its test split are kept back, as a competition does it."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = epath.Path(__file__).parent

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: object) -> dict[str, object]:
        return {"train": self._generate_examples(40, 0), "test": self._generate_examples(4, -1)}

    def _generate_examples(self, count: int, kept_back: int) -> Iterator[tuple[int, dict[str, object]]]:
        for index in range(count):
            yield index, {"image": io.BytesIO(jpeg(index)), "label": kept_back or index % 2}


def images_of(dataset: Dataset, split: SplitName) -> Iterator[bytes]:
    for pixels, _ in records.read_batches(dataset, dataset.manifest.splits[split].shards, 100):
        yield from (image.numpy().tobytes() for image in pixels)


def jpeg(index: int) -> bytes:
    return encoded(Image.fromarray(picture(seed=index)), "JPEG", quality=85)


def test_data_sets_stored_as_jpeg_are_decoded_as_they_are_served(tmp_path: Path) -> None:
    StoredAsJpeg(data_dir=tmp_path / "tfds").download_and_prepare()
    asked = options("stored_as_jpeg", data_dir=str(tmp_path / "tfds"), image_size=32)
    source = open_source(asked)
    train = source.splits["train"]
    assert {*train.read(0, 40)} == {jpeg(index) for index in range(40)}
    write_dataset(source, asked, tmp_path / "out", stage_log("test"))
    dataset = Dataset(tmp_path / "out")
    assert {name: split.examples for name, split in dataset.manifest.splits.items()} == {
        "train": 26,
        "validation": 6,
        "test": 8,
    }
    assert dataset.manifest.report
    assert dataset.manifest.report.skipped == {"images of the test split, which has no labels": 4}
    served = {decode([jpeg(index)], (32, 32, 3), 10**6)[0].tobytes() for index in range(40)}
    assert {pixels for split in SPLITS for pixels in images_of(dataset, split)} == served
