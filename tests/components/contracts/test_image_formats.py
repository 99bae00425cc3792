"""One list of image formats: the decoders that there are hold to it, and to each other, bit for bit."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from cases.odd_images import COLOUR_ONLY, IMAGES, REFUSED, UNFINISHED, picture
from PIL import Image
from repository import REPOSITORY

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.contracts.image_formats import remedy, what_it_is
from kfp_image_classification.components.contracts.preprocessing import check_image, decode_image
from kfp_image_classification.components.deploy.server.image_files import UnusableImage, decode
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sharding import write_dataset
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.ingest.sources.source import Source
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.step.stage_log import stage_log

COLOUR, GREY, MANY = (32, 32, 3), (32, 32, 1), 10**6
ALL_IMAGES = IMAGES | COLOUR_ONLY
NOT_GREY = {name: (content, "a damaged JPEG") for name, content in COLOUR_ONLY.items()}


@pytest.mark.parametrize(
    ("name", "image_shape"),
    [
        *((name, shape) for name in ALL_IMAGES for shape in (COLOUR, (40, 32, 3))),
        *((name, shape) for name in IMAGES for shape in (GREY, (40, 32, 1))),
    ],
)
def test_an_image_is_the_same_to_the_graph_and_to_the_server(name: str, image_shape: tuple[int, int, int]) -> None:
    in_the_graph = decode_image(tf.constant(ALL_IMAGES[name]), image_shape).numpy()
    assert np.array_equal(decode([ALL_IMAGES[name]], image_shape, MANY)[0], in_the_graph)
    assert tf.size(check_image(tf.constant(ALL_IMAGES[name]), image_shape)) > 0


@pytest.mark.parametrize(
    ("content", "what", "image_shape"),
    [(*refused, shape) for refused in REFUSED.values() for shape in (COLOUR, GREY)]
    + [(*refused, GREY) for refused in NOT_GREY.values()],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_is_no_image_is_refused_by_the_graph_and_by_the_server(
    content: bytes, what: str, image_shape: tuple[int, int, int]
) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(tf.constant(content), image_shape)
    with pytest.raises(tf.errors.InvalidArgumentError):
        check_image(tf.constant(content), image_shape)
    with pytest.raises(
        UnusableImage, match=rf"image 0: cannot be decoded: it is {what}.*; expected a whole PNG or JPEG"
    ):
        decode([content], image_shape, MANY)


@pytest.mark.parametrize("content", [REFUSED["gif_named.png"][0], REFUSED["without_its_end.png"][0], b""])
def test_the_exported_graph_refuses_the_same(trained: SimpleNamespace, content: bytes) -> None:
    serve = tf.saved_model.load(str(trained.model / "1")).signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected a whole PNG or JPEG|Invalid PNG data"):
        serve(tf.constant([content]))
    assert serve(tf.constant([IMAGES["progressive.jpg"]]))["logits"].shape == (1, 10)


def write_folder(root: Path, files: dict[str, bytes]) -> IngestOptions:
    """A folder whose own test split has these files, as class `a`."""
    for split in ("train", "test"):
        for label, name in enumerate("ab"):
            (root / split / name).mkdir(parents=True)
            for index in range(3):
                Image.fromarray(picture(seed=label * 3 + index)).save(root / split / name / f"plain{index}.png")
    for name, content in files.items():
        (root / "test" / "a" / name).write_bytes(content)
    return IngestOptions(dataset=f"image_folder:{root}", validation_share=0.5, workers=1, seed=0, image_size=32)


def test_an_image_is_the_same_in_training_and_in_serving(tmp_path: Path) -> None:
    files = {f"{index:02d}-{name}": content for index, (name, content) in enumerate(ALL_IMAGES.items())}
    options = write_folder(tmp_path / "in", files)
    write_dataset(open_source(options), options, tmp_path / "out", stage_log("test"))
    dataset = Dataset(tmp_path / "out")
    batches = records.read_batches(dataset, dataset.manifest.splits["test"].shards, 512)
    trained = {pixels.numpy().tobytes() for images, _ in batches for pixels in images}
    missing = [name for name, content in files.items() if decode([content], COLOUR, MANY)[0].tobytes() not in trained]
    assert missing == []


def test_ingest_names_all_that_it_refuses_at_once_and_what_each_is(tmp_path: Path) -> None:
    options = write_folder(tmp_path / "in", {name: content for name, (content, _) in REFUSED.items()})
    with pytest.raises(InvalidInput) as error:
        write_dataset(open_source(options), options, tmp_path / "out", stage_log("test"))
    problems = sorted(error.value.problems)
    assert len(problems) == len(REFUSED)
    for name, (content, what) in REFUSED.items():
        (problem,) = [problem for problem in problems if f"/test/a/{name} is " in problem]
        assert f"/test/a/{name} is {what}" in problem
        assert problem.startswith(f"dataset = {options.dataset!r}: ")
        assert problem.endswith(remedy(content))
    assert not (tmp_path / "out").exists()


LACKING = "is a damaged JPEG, or one that was not copied to its end; replace or remove it"


def test_a_progressive_jpeg_that_lacks_scans_is_refused_by_ingest_and_by_the_server(tmp_path: Path) -> None:
    options = write_folder(tmp_path / "in", UNFINISHED)
    with pytest.raises(InvalidInput) as error:
        write_dataset(open_source(options), options, tmp_path / "out", stage_log("test"))
    assert sorted(error.value.problems) == [
        f"dataset = {options.dataset!r}: {tmp_path}/in/test/a/{name} {LACKING}" for name in sorted(UNFINISHED)
    ]
    for content in UNFINISHED.values():
        for shape in (COLOUR, GREY):
            with pytest.raises(UnusableImage, match="it is a damaged JPEG"):
                decode([content], shape, MANY)


@dataclass(frozen=True)
class StoredFiles:
    """Files within another file, as TensorFlow Datasets keeps them."""

    files: list[bytes]

    def __len__(self) -> int:
        return len(self.files)

    def labels(self) -> np.ndarray:
        return np.arange(len(self), dtype=np.int32) % 2

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        yield from self.files[start:stop]

    def pick(self, indices: np.ndarray) -> Iterator[bytes]:
        yield from (self.files[index] for index in indices)

    def name(self, index: int) -> str:
        return f"example {index}"


def test_whatever_a_source_reads_from(ingest_options: IngestOptions, tmp_path: Path) -> None:
    whole = IMAGES["progressive.jpg"]
    files = StoredFiles([whole] * 40 + [UNFINISHED["5_scans.jpg"], whole, UNFINISHED["1_scans.jpg"]])
    splits = {"train": files, "validation": StoredFiles([whole] * 8), "test": StoredFiles([whole] * 8)}
    source = Source("stored", "1", ["a", "b"], COLOUR, splits)
    with pytest.raises(InvalidInput) as error:
        write_dataset(source, ingest_options, tmp_path / "out", stage_log("test"))
    assert sorted(error.value.problems) == [f"dataset = 'stored': example {index} {LACKING}" for index in (40, 42)]


def test_others_are_to_be_converted_and_damaged_ones_replaced() -> None:
    assert remedy(REFUSED["webp_named.jpg"][0]) == "convert it to PNG or JPEG, or remove it"
    assert remedy(REFUSED["truncated.png"][0]) == remedy(REFUSED["page_named.jpg"][0]) == "replace or remove it"
    assert what_it_is(b"hello") == "neither PNG nor JPEG (it begins with b'hello')"


@pytest.mark.slow
def test_the_script_that_compares_them_finds_no_difference(tmp_path: Path) -> None:
    """As somebody runs it, each file in a data set of its own."""
    script = REPOSITORY / "tests" / "cases" / "ingest_vs_server.py"
    ended = subprocess.run(
        [sys.executable, script, tmp_path / "files"], capture_output=True, text=True, check=False, timeout=500
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    alike = [line for line in lines if "max   0  mean  0.000  pixels that differ   0.0 %" in line]
    refused = [line for line in lines if "ingest refuses it: " in line]
    assert (len(alike), len(refused)) == (len(ALL_IMAGES), len(REFUSED | UNFINISHED)), ended.stdout
