from itertools import islice

import numpy as np
import pytest

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.train.worker.input_pipeline import (
    steps_per_epoch,
    training_batches,
    validation_batches,
    worker_shards,
)

SEED = 3


@pytest.fixture(autouse=True, params=[2**26, 300_000], ids=["in memory", "from files"])
def shuffle_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that fits the shuffle window is kept in memory; a larger one is streamed."""
    monkeypatch.setattr("kfp_image_classification.components.train.worker.input_pipeline.SHUFFLE_BYTES", request.param)


def worker_batches(digits: Dataset, index: int, count: int, first: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    shards = digits.manifest.splits["train"].shards
    steps = steps_per_epoch(shards, 2, 50)
    stream = training_batches(digits, worker_shards(shards, index, 2), 50, steps, SEED, first)
    return [(pixels.numpy(), labels.numpy()) for pixels, labels in islice(stream, count)]


def images(batches: list[tuple[np.ndarray, np.ndarray]]) -> list[bytes]:
    return [image.tobytes() for pixels, _ in batches for image in pixels]


def test_an_epoch_shows_every_image_once_and_no_other_workers(digits: Dataset) -> None:
    first, second = (images(worker_batches(digits, index, 36)) for index in (0, 1))
    paths = {
        shard.file for index in (0, 1) for shard in worker_shards(digits.manifest.splits["train"].shards, index, 2)
    }
    assert len(paths) == 8
    assert len(first) == len(set(first)) == len(second) == len(set(second)) == 1800
    assert not set(first) & set(second)


def test_epochs_differ_in_order_only(digits: Dataset) -> None:
    batches = worker_batches(digits, 0, 72)
    first, second = images(batches[:36]), images(batches[36:])
    assert first != second
    assert sorted(first) == sorted(second)


@pytest.mark.parametrize("first", [0, 1, 35, 36, 50])
def test_stream_continues_at_any_position(digits: Dataset, first: int) -> None:
    whole = worker_batches(digits, 1, first + 4)[first:]
    resumed = worker_batches(digits, 1, 4, first)
    assert images(whole) == images(resumed)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(whole, resumed, strict=True))


def test_classes_are_mixed(digits: Dataset) -> None:
    for _, labels in worker_batches(digits, 0, 5):
        assert len(set(labels.tolist())) >= 7


def test_every_worker_takes_the_same_number_of_steps(digits: Dataset) -> None:
    shards = digits.manifest.splits["train"].shards
    uneven = [shard.model_copy(update={"examples": 10 + index}) for index, shard in enumerate(shards)]
    assert steps_per_epoch(uneven, 2, 5) == (10 + 12 + 14 + 16) // 5


def test_validation_reads_the_workers_shards_once(digits: Dataset) -> None:
    shards = digits.manifest.splits["validation"].shards
    counts = [
        sum(len(labels) for _, labels in validation_batches(digits, worker_shards(shards, index, 2), 64))
        for index in (0, 1)
    ]
    assert counts == [200, 200]


@pytest.mark.parametrize("augmentation", ["shift", "shift_flip", "photo"])
def test_augmentation_follows_from_the_position(digits: Dataset, augmentation: str) -> None:
    shards = worker_shards(digits.manifest.splits["train"].shards, 0, 2)

    def batches(first: int, count: int, name: str) -> list[np.ndarray]:
        return [
            pixels.numpy() for pixels, _ in islice(training_batches(digits, shards, 50, 36, SEED, first, name), count)
        ]

    plain, changed = batches(0, 4, "none"), batches(0, 4, augmentation)
    assert np.array_equal(batches(2, 2, augmentation), changed[2:])
    assert not np.array_equal(plain, changed)
    if augmentation == "photo":
        return  # which changes light, too
    # Digits have wide black margins: moved by at most three pixels, next to nothing leaves the image.
    kept = np.sum(changed, dtype=np.int64) / np.sum(plain, dtype=np.int64)
    assert 0.95 < kept <= 1
