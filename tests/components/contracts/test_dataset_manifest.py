import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.step.errors import StageFailed


@pytest.fixture
def copied(digits: Dataset, tmp_path: Path) -> Dataset:
    return Dataset(shutil.copytree(digits.directory, tmp_path / "shards"))


def truncated(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def with_a_flipped_bit(path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def gone(path: Path, other: Path) -> None:
    path.unlink()


def another(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


def another_of_its_size(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes().ljust(path.stat().st_size, b"\0")[: path.stat().st_size])


def a_folder(path: Path, other: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILERS = {
    truncated: (r"\d+ bytes, the manifest says \d+: the file is truncated or altered", True),
    gone: ("the file is missing", True),
    another: (r"\d+ bytes, the manifest says \d+: the file is truncated or altered", True),
    a_folder: ("bytes, the manifest says", True),
    with_a_flipped_bit: ("its sha256 is not the manifest's", False),
    another_of_its_size: ("its sha256 is not the manifest's", False),
}


def test_whole_shards_are_accepted(digits: Dataset) -> None:
    for split in digits.manifest.splits.values():
        digits.check_sizes(split.shards)
        assert [len(digits.read(shard)) for shard in split.shards] == [shard.bytes for shard in split.shards]
    assert digits.refused is None


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_spoilt_shard_is_named(copied: Dataset, spoil: Callable[[Path, Path], None]) -> None:
    words, is_seen_from_outside = SPOILERS[spoil]
    shard, other = copied.manifest.splits["train"].shards[3], copied.manifest.splits["test"].shards[0]
    spoil(copied.path(shard), copied.path(other))
    with pytest.raises(StageFailed, match=rf"{shard.file}: .*{words}.*; run the pipeline again") as refused:
        copied.read(shard)
    assert copied.refused is refused.value
    if is_seen_from_outside:
        with pytest.raises(StageFailed, match=rf"{shard.file}: .*{words}"):
            copied.check_sizes(copied.manifest.splits["train"].shards)


@pytest.mark.parametrize("spoil", [with_a_flipped_bit, another_of_its_size], ids=lambda spoil: spoil.__name__)
def test_shard_that_is_spoilt_between_two_readings_is_named(
    copied: Dataset, spoil: Callable[[Path, Path], None]
) -> None:
    shard, other = copied.manifest.splits["train"].shards[3], copied.manifest.splits["test"].shards[0]
    right = copied.read(shard)
    assert copied.read(shard) == right
    spoil(copied.path(shard), copied.path(other))
    for _ in range(2):
        with pytest.raises(StageFailed, match=rf"{shard.file}: its content is not what it was .*; run the pipeline"):
            copied.read(shard)
    copied.path(shard).write_bytes(right)
    assert copied.read(shard) == right


def test_shards_may_lie_elsewhere(copied: Dataset, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    for shard in copied.manifest.splits["train"].shards:
        copied.path(shard).rename(tmp_path / "volume" / shard.file)
    moved = copied.manifest.model_copy(update={"root": str(tmp_path / "volume")})
    (copied.directory / "manifest.json").write_text(moved.model_dump_json())
    elsewhere = Dataset(copied.directory)
    for shard in elsewhere.manifest.splits["train"].shards:
        elsewhere.read(shard)
    assert elsewhere.manifest.fingerprint == copied.manifest.fingerprint


@pytest.mark.parametrize("content", [None, "", "{}", '{"format": "tfrecord-9"}'])
def test_unreadable_manifest_is_an_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(StageFailed, match="no readable data set manifest"):
        Dataset(tmp_path)
