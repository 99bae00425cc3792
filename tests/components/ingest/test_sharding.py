from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import (
    ENCODED,
    RAW,
    SPLITS,
    Dataset,
    RecordLayout,
    SplitName,
)
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.preview import preview_page
from kfp_image_classification.components.ingest.shard_plan import record_layout, shard_count
from kfp_image_classification.components.ingest.sharding import write_dataset
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.ingest.sources.source import Content, Examples, PixelExamples, Source
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.step.stage_log import stage_log

LOG = stage_log("test")


def contents(dataset: Dataset, split: SplitName) -> list[tuple[bytes, int]]:
    batches = records.read_batches(dataset, dataset.manifest.splits[split].shards, 500)
    return [
        (image.numpy().tobytes(), int(label))
        for images, labels in batches
        for image, label in zip(images, labels, strict=True)
    ]


def tiny_source(examples: int, **splits: Examples) -> Source:
    numbers = np.arange(examples)
    pixels = np.broadcast_to(numbers.astype(np.uint8)[:, None, None, None], (examples, 8, 8, 1))
    train = PixelExamples(pixels, (numbers % 2).astype(np.int32))
    return Source("tiny", "1", ["even", "odd"], (8, 8, 1), {"train": train, **splits})


def test_every_image_is_in_one_split_once(digits: Dataset, ingest_options: IngestOptions) -> None:
    written = sorted(item for split in SPLITS for item in contents(digits, split))
    train = open_source(ingest_options).splits["train"]
    pairs = zip(train.read(0, len(train)), train.labels(), strict=True)
    source = sorted((pixels.tobytes(), int(label)) for pixels, label in pairs)
    assert written == source
    assert {split: digits.manifest.splits[split].examples for split in SPLITS} == {
        "train": 3600,
        "validation": 400,
        "test": 1000,
    }


def test_counts_are_of_what_is_there(digits: Dataset) -> None:
    for split in SPLITS:
        labels = [label for _, label in contents(digits, split)]
        assert np.bincount(labels, minlength=10).tolist() == digits.manifest.splits[split].class_counts


def test_same_seed_same_files_other_seed_other_validation(
    digits: Dataset, ingest_options: IngestOptions, tmp_path: Path
) -> None:
    same = write_dataset(open_source(ingest_options), ingest_options, tmp_path / "same", LOG)
    assert same == digits.manifest
    reseeded = ingest_options.model_copy(update={"seed": 1})
    other = write_dataset(open_source(reseeded), reseeded, tmp_path / "other", LOG)
    assert other.fingerprint != same.fingerprint
    assert sorted(contents(Dataset(tmp_path / "other"), "test")) == sorted(contents(digits, "test"))
    assert sorted(contents(Dataset(tmp_path / "other"), "validation")) != sorted(contents(digits, "validation"))


def test_own_test_split_is_used(tmp_path: Path, ingest_options: IngestOptions) -> None:
    held_out = tiny_source(10).splits["train"]
    manifest = write_dataset(tiny_source(40, test=held_out), ingest_options, tmp_path / "d", LOG)
    assert {split: manifest.splits[split].examples for split in SPLITS} == {"train": 36, "validation": 4, "test": 10}


@pytest.mark.parametrize(
    ("examples", "image_bytes", "workers", "layout", "expected"),
    [
        (3600, 784, 2, RAW, 8),
        (3600, 784, 3, RAW, 12),
        (5, 784, 2, RAW, 4),
        (2, 784, 2, RAW, 2),
        (50_000, 3_072, 2, RAW, 38),
        (1_000_000, 110_000, 4, ENCODED, 6560),
    ],
)
def test_shard_count(examples: int, image_bytes: int, workers: int, layout: RecordLayout, expected: int) -> None:
    assert shard_count(examples, image_bytes, workers, layout) == expected


def test_shards_are_equally_large(digits: Dataset) -> None:
    for split in SPLITS:
        counts = [shard.examples for shard in digits.manifest.splits[split].shards]
        assert max(counts) - min(counts) <= 1
        assert len(counts) % 2 == 0


def test_too_few_images_for_the_workers(tmp_path: Path) -> None:
    options = IngestOptions(dataset="tiny", validation_share=0.1, workers=3, seed=0)
    with pytest.raises(InvalidInput) as error:
        write_dataset(tiny_source(10), options, tmp_path / "d", LOG)
    assert [problem.split(";")[0] for problem in error.value.problems] == [
        "dataset = 'tiny': only 1 validation images for workers = 3",
        "dataset = 'tiny': only 2 test images for workers = 3",
    ]


def test_interrupted_ingest_leaves_nothing_under_the_name(tmp_path: Path, ingest_options: IngestOptions) -> None:
    class Breaks(PixelExamples):
        def pick(self, indices: np.ndarray) -> Iterator[Content]:
            yield from super().pick(indices[:1])
            raise OSError("the disk went away")

    pixels, labels = np.zeros((100, 8, 8, 1), np.uint8), np.arange(100, dtype=np.int32) % 2
    source = Source("broken", "1", ["a", "b"], (8, 8, 1), {"train": Breaks(pixels, labels)})
    with pytest.raises(OSError, match="the disk went away"):
        write_dataset(source, ingest_options, tmp_path / "d", LOG)
    assert not (tmp_path / "d").exists()
    write_dataset(tiny_source(100), ingest_options, tmp_path / "d", LOG)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_preview_shows_images_and_counts(digits: Dataset) -> None:
    page = preview_page(digits.directory)
    assert "5,000 images of 28 x 28 pixels" in page
    assert 'src="data:image/png;base64,' in page
    assert f"<b>{digits.manifest.splits['train'].class_counts[3]:,}</b>" in page
    assert "None: no file is there twice." in page
    assert "5000 JPEG" not in page
    assert "3,600 pixels" in page


def test_preview_of_a_data_set_of_earlier_versions(digits: Dataset, tmp_path: Path) -> None:
    earlier = digits.manifest.model_copy(update={"root": str(digits.directory), "report": None})
    (tmp_path / "manifest.json").write_text(earlier.model_dump_json())
    assert "5,000 images of 28 x 28 pixels" in preview_page(tmp_path)


@pytest.mark.parametrize(
    ("record_format", "shape", "layout"),
    [
        ("auto", (28, 28, 1), RAW),
        ("auto", (64, 64, 3), RAW),
        ("auto", (65, 64, 3), ENCODED),
        ("auto", (375, 500, 3), ENCODED),
        ("raw", (375, 500, 3), RAW),
        ("encoded", (28, 28, 1), ENCODED),
    ],
)
def test_small_images_are_kept_as_pixels_and_photographs_as_files(
    record_format: str, shape: tuple[int, int, int], layout: str, ingest_options: IngestOptions
) -> None:
    assert record_layout(ingest_options.model_copy(update={"record_format": record_format}), shape) == layout


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for number in range(40):
        path = root / "ab"[number % 2] / f"{number}.{'png' if number % 5 == 0 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        small = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
        small.resize((160 + number, 120)).save(path)
    return root


def test_encoded_records_are_the_sources_files_and_raw_ones_their_pixels(photographs: Path, tmp_path: Path) -> None:
    """Untouched, and the same to the bit to whoever reads them."""
    read = {}
    for record_format in ("raw", "encoded"):
        options = IngestOptions(
            dataset=f"image_folder:{photographs}",
            validation_share=0.1,
            image_size=48,
            workers=1,
            seed=0,
            record_format=record_format,
        )
        write_dataset(open_source(options), options, tmp_path / record_format, LOG)
        dataset = Dataset(tmp_path / record_format)
        read[record_format] = [contents(dataset, split) for split in SPLITS]
    assert read["raw"] == read["encoded"]
    files = [path.read_bytes() for path in sorted(photographs.rglob("*.*"))]
    kept = [
        image
        for split in SPLITS
        for images, _ in records.read_files(dataset, dataset.manifest.splits[split].shards, 7)
        for image in images
    ]
    assert sorted(kept) == sorted(files)
    shards = sum(shard.bytes for split in dataset.manifest.splits.values() for shard in split.shards)
    assert shards < 1.1 * sum(map(len, files))


def test_any_number_of_cores_writes_the_same(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = IngestOptions(dataset=f"image_folder:{photographs}", validation_share=0.1, workers=1, seed=0)
    manifests = []
    for cores in (1, 8):
        monkeypatch.setattr("kfp_image_classification.components.ingest.shard_writing.usable_cores", lambda n=cores: n)
        manifests.append(write_dataset(open_source(options), options, tmp_path / str(cores), LOG))
    assert manifests[0] == manifests[1]
