import shutil
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sharding import write_dataset
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.step.stage_log import stage_log
from kfp_image_classification.components.train.worker.input_pipeline import (
    ValidationBatches,
    steps_per_epoch,
    training_batches,
    worker_shards,
)

SEED = 3


MODULE = "kfp_image_classification.components.train.worker.input_pipeline"
WINDOWS = "kfp_image_classification.components.train.worker.shuffled_windows"
# Of a worker's digits: room for some, and for all.
CACHE_BYTES = {"encoded, some kept": 500_000, "encoded, all kept": 2_000_000}


@pytest.fixture(scope="module")
def as_files(ingest_options: IngestOptions, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The digits as PNG files, which is how photographs are kept."""
    options = ingest_options.model_copy(update={"record_format": "encoded"})
    directory = tmp_path_factory.mktemp("encoded") / "shards"
    write_dataset(open_source(options), options, directory, stage_log("test"))
    return Dataset(directory)


@pytest.fixture(params=["raw, in memory", "raw, from files", "encoded", *CACHE_BYTES])
def data(
    request: pytest.FixtureRequest, digits: Dataset, as_files: Dataset, monkeypatch: pytest.MonkeyPatch
) -> tuple[Dataset, int, int]:
    """A data set, the memory for its decoded images and for a whole share of raw pixels; there are several windows."""
    if request.param != "raw, in memory":
        monkeypatch.setattr(f"{WINDOWS}.WINDOW_BYTES", 800_000 if request.param.startswith("raw") else 300_000)
    dataset = digits if request.param.startswith("raw") else as_files
    return dataset, CACHE_BYTES.get(request.param, 0), 2**26 if request.param == "raw, in memory" else 0


Data = tuple[Dataset, int, int]


def worker_batches(
    data: Data, index: int, count: int, first: int = 0, augmentation: str = "none"
) -> list[tuple[np.ndarray, np.ndarray]]:
    dataset, cache_bytes, whole = data
    shards = dataset.manifest.splits["train"].shards
    steps = steps_per_epoch(shards, 2, 50)
    own = worker_shards(shards, index, 2)
    stream = training_batches(dataset, own, 50, steps, SEED, first, augmentation, cache_bytes, whole_share_bytes=whole)
    return [(pixels.numpy(), labels.numpy()) for pixels, labels in islice(stream, count)]


def images(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[bytes]:
    return [np.asarray(image).tobytes() for pixels, _ in batches for image in pixels]


def test_an_epoch_shows_every_image_once_and_no_other_workers(data: Data) -> None:
    first, second = (images(worker_batches(data, index, 36)) for index in (0, 1))
    shards = data[0].manifest.splits["train"].shards
    assert len({shard.file for index in (0, 1) for shard in worker_shards(shards, index, 2)}) == 8
    assert len(first) == len(set(first)) == len(second) == len(set(second)) == 1800
    assert not set(first) & set(second)


def test_epochs_differ_in_order_only(data: Data) -> None:
    batches = worker_batches(data, 0, 72)
    first, second = images(batches[:36]), images(batches[36:])
    assert first != second
    assert sorted(first) == sorted(second)


@pytest.mark.parametrize("first", [0, 1, 35, 36, 50])
def test_stream_continues_at_any_position(data: Data, first: int) -> None:
    whole = worker_batches(data, 1, first + 4)[first:]
    resumed = worker_batches(data, 1, 4, first)
    assert images(whole) == images(resumed)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(whole, resumed, strict=True))


@pytest.mark.parametrize("first", [0, 35])
def test_groups_are_the_same_batches(data: Data, first: int) -> None:
    dataset, cache_bytes, whole = data
    shards = worker_shards(dataset.manifest.splits["train"].shards, 1, 2)
    stream = training_batches(
        dataset, shards, 50, 36, SEED, first, "shift", cache_bytes, whole_share_bytes=whole, together=3
    )
    groups = [(pixels.numpy(), labels.numpy()) for pixels, labels in islice(stream, 2)]
    single = worker_batches(data, 1, 6, first, "shift")
    assert images(single) == [image for pixels, _ in groups for image in images((batch, None) for batch in pixels)]
    assert [labels.tolist() for _, labels in single] == [labels.tolist() for _, of in groups for labels in of]


def test_nothing_tunes_the_stream(digits: Dataset) -> None:
    """Its end would wait for the thread that does, for as long as it was read, up to a minute."""
    shards = digits.manifest.splits["train"].shards
    assert training_batches(digits, shards, 50, 36, SEED).options().autotune.enabled is False


def test_classes_are_mixed(data: Data) -> None:
    for _, labels in worker_batches(data, 0, 5):
        assert len(set(labels.tolist())) >= 7


def test_every_worker_takes_the_same_number_of_steps(digits: Dataset) -> None:
    shards = digits.manifest.splits["train"].shards
    uneven = [shard.model_copy(update={"examples": 10 + index}) for index, shard in enumerate(shards)]
    assert steps_per_epoch(uneven, 2, 5) == (10 + 12 + 14 + 16) // 5


def test_validation_reads_the_workers_shards_again_and_again(data: Data) -> None:
    dataset, cache_bytes, _ = data
    shards = dataset.manifest.splits["validation"].shards
    for index in (0, 1):
        batches = ValidationBatches(dataset, worker_shards(shards, index, 2), 64, cache_bytes)
        once, again = ([pixels.numpy().tobytes() for pixels, _ in batches] for _ in range(2))
        assert once == again
        assert sum(len(labels) for _, labels in batches) == 200


@pytest.mark.parametrize("augmentation", ["shift", "shift_flip", "photo"])
def test_augmentation_follows_from_the_position(data: Data, augmentation: str) -> None:
    plain = [pixels for pixels, _ in worker_batches(data, 0, 4)]
    changed = [pixels for pixels, _ in worker_batches(data, 0, 4, augmentation=augmentation)]
    resumed = [pixels for pixels, _ in worker_batches(data, 0, 2, 2, augmentation)]
    assert np.array_equal(resumed, changed[2:])
    assert not np.array_equal(plain, changed)
    if augmentation == "photo":
        return  # which changes light, too
    # Digits have wide black margins: moved by at most three pixels, next to nothing leaves the image.
    kept = np.sum(changed, dtype=np.int64) / np.sum(plain, dtype=np.int64)
    assert 0.95 < kept <= 1


@pytest.mark.parametrize("augmentation", ["none", "shift"])
def test_number_of_cores_and_kept_images_change_nothing(
    data: Data, augmentation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, cache_bytes, whole = data
    for module in (MODULE, WINDOWS):
        monkeypatch.setattr(f"{module}.usable_cores", lambda: 1)
    alone = worker_batches((dataset, 0, whole), 0, 80, 7, augmentation)
    for module in (MODULE, WINDOWS):
        monkeypatch.setattr(f"{module}.usable_cores", lambda: 8)
    together = worker_batches((dataset, cache_bytes, whole), 0, 80, 7, augmentation)
    assert images(alone) == images(together)


def test_what_is_kept_is_not_read_again(as_files: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{WINDOWS}.WINDOW_BYTES", 300_000)
    read: list[str] = []
    dataset = Dataset(as_files.directory)
    really = dataset.read
    monkeypatch.setattr(dataset, "read", lambda shard: (read.append(shard.file), really(shard))[1])
    worker_batches((dataset, 2_000_000, 0), 0, 36 * 4)
    # Once each; the second epoch's first may be wanted while the first epoch's last are not decoded yet.
    assert len(set(read)) == 4
    assert len(read) <= 6


@pytest.mark.parametrize("kind", ["raw, from files", "encoded"])
def test_nothing_altered_is_trained_on(
    kind: str, digits: Dataset, as_files: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards that look right from outside are told from their content, when their turn comes."""
    monkeypatch.setattr(f"{WINDOWS}.WINDOW_BYTES", 1)
    source = digits if kind.startswith("raw") else as_files
    dataset = Dataset(shutil.copytree(source.directory, tmp_path / "shards"))
    own = worker_shards(dataset.manifest.splits["train"].shards, 0, 2)
    content = bytearray(dataset.path(own[2]).read_bytes())
    content[len(content) // 3] ^= 4
    dataset.path(own[2]).write_bytes(content)
    good = {image for shard in own if shard != own[2] for image in images(records.read_batches(source, [shard], 100))}
    trained: list[bytes] = []
    batches = (
        [image.numpy().tobytes() for image in pixels]
        for pixels, _ in training_batches(dataset, own, 50, 36, SEED, whole_share_bytes=0)
    )
    with pytest.raises(tf.errors.OpError):
        trained.extend(image for batch in batches for image in batch)
    assert set(trained) <= good
    assert f"{own[2].file}: its sha256 is not the manifest's" in str(dataset.refused)
