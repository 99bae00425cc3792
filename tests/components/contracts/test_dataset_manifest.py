import shutil
from pathlib import Path

import pytest

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.step.errors import StageFailed


@pytest.fixture
def copied(digits: Dataset, tmp_path: Path) -> Dataset:
    return Dataset(shutil.copytree(digits.directory, tmp_path / "shards"))


def test_whole_shards_are_accepted(digits: Dataset) -> None:
    for split in digits.manifest.splits.values():
        digits.verify(split.shards)


def test_truncated_shard_is_named(copied: Dataset) -> None:
    shard = copied.manifest.splits["train"].shards[3]
    path = copied.path(shard)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StageFailed, match=rf"{shard.file}: {shard.bytes - 10} bytes, .*truncated or altered"):
        copied.verify(copied.manifest.splits["train"].shards)


def test_altered_shard_is_named(copied: Dataset) -> None:
    shard = copied.manifest.splits["test"].shards[0]
    path = copied.path(shard)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(StageFailed, match=rf"{shard.file}: its sha256 is not the manifest's"):
        copied.verify(copied.manifest.splits["test"].shards)


def test_missing_shard_is_named(copied: Dataset) -> None:
    shard = copied.manifest.splits["validation"].shards[1]
    copied.path(shard).unlink()
    with pytest.raises(StageFailed, match=rf"{shard.file}: the file is missing"):
        copied.verify(copied.manifest.splits["validation"].shards)


def test_shards_may_lie_elsewhere(copied: Dataset, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    for shard in copied.manifest.splits["train"].shards:
        copied.path(shard).rename(tmp_path / "volume" / shard.file)
    moved = copied.manifest.model_copy(update={"root": str(tmp_path / "volume")})
    (copied.directory / "manifest.json").write_text(moved.model_dump_json())
    elsewhere = Dataset(copied.directory)
    elsewhere.verify(elsewhere.manifest.splits["train"].shards)
    assert elsewhere.manifest.fingerprint == copied.manifest.fingerprint


@pytest.mark.parametrize("content", [None, "", "{}", '{"format": "tfrecord-9"}'])
def test_unreadable_manifest_is_an_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(StageFailed, match="no readable data set manifest"):
        Dataset(tmp_path)
