"""Data sets on the volume: found again, shared, made anew when damaged, and never half there."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kfp_image_classification.components.cleanup.unused_folders import remove_unused
from kfp_image_classification.components.contracts.dataset_manifest import (
    CHECKED_FILE,
    MANIFEST_FILE,
    SPLITS,
    Dataset,
    DatasetManifest,
    Shard,
    Split,
    file_sha256,
)
from kfp_image_classification.components.ingest.kept_datasets import find_known, keep_dataset, kept_dataset
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.step.stage_log import stage_log

LOG = stage_log("test")
OPTIONS = IngestOptions(dataset="mnist_5k", validation_share=0.1, workers=1, seed=0)


class Maker:
    """Writes small data sets, and counts them."""

    def __init__(self, content: str = "records") -> None:
        self.content = content
        self.made = 0

    def __call__(self, folder: Path) -> None:
        self.made += 1
        folder.mkdir()
        splits = {}
        for name in SPLITS:
            path = folder / f"{name}.gz"
            path.write_text(f"{name} {self.content}")
            shard = Shard(file=path.name, examples=1, bytes=path.stat().st_size, sha256=file_sha256(path))
            splits[name] = Split(shards=[shard], class_counts=[1, 0])
        manifest = DatasetManifest(
            name="x", version="1", seed=0, image_shape=(8, 8, 1), class_names=["a", "b"], splits=splits
        )
        (folder / MANIFEST_FILE).write_text(manifest.model_dump_json())


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STORAGE_PATH", str(tmp_path))
    folder = tmp_path / "datasets"
    folder.mkdir()
    return folder


def names(datasets: Path) -> list[str]:
    return sorted(path.name for path in datasets.iterdir())


def test_what_is_there_is_found_again_by_every_run(datasets: Path) -> None:
    maker = Maker()
    first = keep_dataset(OPTIONS, datasets, maker, LOG)
    again = keep_dataset(OPTIONS, datasets, maker, LOG)
    assert (again.directory, maker.made) == (first.directory, 1)
    assert names(datasets) == [first.manifest.fingerprint]
    assert kept_dataset(first.manifest.fingerprint, datasets).manifest == first.manifest


def test_other_parameters_are_another_data_set_unless_the_content_is_the_same(datasets: Path) -> None:
    first = keep_dataset(OPTIONS, datasets, Maker(), LOG)
    other = OPTIONS.model_copy(update={"seed": 1})
    assert keep_dataset(other, datasets, Maker("others"), LOG).directory != first.directory
    same = OPTIONS.model_copy(update={"data_dir": "/elsewhere"})
    maker = Maker()
    assert keep_dataset(same, datasets, maker, LOG).directory == first.directory
    assert keep_dataset(same, datasets, maker, LOG).directory == first.directory
    assert (maker.made, len(names(datasets))) == (1, 2)


def remove_shard(folder: Path) -> None:
    (folder / "test.gz").unlink()


def truncate_shard(folder: Path) -> None:
    os.truncate(folder / "train.gz", 3)


def alter_shard(folder: Path) -> None:
    text = (folder / "train.gz").read_text()
    (folder / "train.gz").write_text(text.swapcase())


def alter_shard_unseen(folder: Path) -> None:
    """As a disk does it; whoever reads the shard, a worker for one, finds it."""
    status = (folder / "train.gz").stat()
    alter_shard(folder)
    os.utime(folder / "train.gz", ns=(status.st_atime_ns, status.st_mtime_ns))
    dataset = Dataset(folder)
    with pytest.raises(StageFailed, match="run the pipeline again"):
        dataset.read(dataset.manifest.splits["train"].shards[0])


def lose_manifest(folder: Path) -> None:
    (folder / MANIFEST_FILE).unlink()


def cut_manifest(folder: Path) -> None:
    os.truncate(folder / MANIFEST_FILE, 30)


def exchange_manifest(folder: Path) -> None:
    shutil.rmtree(folder)
    Maker("others")(folder)


def alter_shard_and_notes(folder: Path) -> None:
    alter_shard(folder)
    (folder / CHECKED_FILE).write_text("[1, 2")


def replace_shard_by_folder(folder: Path) -> None:
    remove_shard(folder)
    (folder / "test.gz").mkdir()


def remove_all_but_marks(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        remove_shard,
        truncate_shard,
        alter_shard,
        alter_shard_unseen,
        alter_shard_and_notes,
        lose_manifest,
        cut_manifest,
        exchange_manifest,
        replace_shard_by_folder,
        remove_all_but_marks,
        shutil.rmtree,
    ],
)
def test_a_damaged_data_set_is_made_anew_under_the_same_name(damage: Callable[[Path], None], datasets: Path) -> None:
    maker = Maker()
    folder = keep_dataset(OPTIONS, datasets, maker, LOG).directory
    damage(folder)
    again = keep_dataset(OPTIONS, datasets, maker, LOG)
    assert (again.directory, maker.made, names(datasets)) == (folder, 2, [folder.name])
    assert all(again.read(shard) for name in SPLITS for shard in again.manifest.splits[name].shards)


def test_checksums_are_read_again_only_after_a_change(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(path: Path) -> str:
        read.append(path.name)
        return file_sha256(path)

    folder = keep_dataset(OPTIONS, datasets, Maker(), LOG).directory
    monkeypatch.setattr("kfp_image_classification.components.contracts.dataset_manifest.file_sha256", counted)
    keep_dataset(OPTIONS, datasets, Maker(), LOG)
    assert read == []
    (folder / "validation.gz").touch()
    keep_dataset(OPTIONS, datasets, Maker(), LOG)
    keep_dataset(OPTIONS, datasets, Maker(), LOG)
    assert read == ["validation.gz"]


def test_a_maker_that_fails_leaves_nothing(datasets: Path) -> None:
    def fail(folder: Path) -> None:
        folder.mkdir()
        (folder / "train.gz").write_text("half")
        raise StageFailed("no more images")

    with pytest.raises(StageFailed, match="no more images"):
        keep_dataset(OPTIONS, datasets, fail, LOG)
    assert names(datasets) == []


def test_a_maker_that_was_killed_is_in_nobodys_way_and_cleaned_up(datasets: Path) -> None:
    half = datasets / ".making-abc" / "dataset"
    half.mkdir(parents=True)
    (half / "train.gz").write_text("half")
    kept = keep_dataset(OPTIONS, datasets, Maker(), LOG)
    long_ago = time.time() - 8 * 86_400
    for path in [half / "train.gz", half, half.parent]:
        os.utime(path, (long_ago, long_ago))
    done = remove_unused(datasets.parent, 7, "", dry_run=False, log=LOG)
    assert (done.removed, names(datasets)) == (["datasets/.making-abc"], [kept.directory.name])


def test_two_runs_make_the_same_at_the_same_time(datasets: Path) -> None:
    """The second begins and ends while the first is at work."""
    other = Maker()

    def make(folder: Path) -> None:
        keep_dataset(OPTIONS, datasets, other, LOG)
        Maker()(folder)

    first = keep_dataset(OPTIONS, datasets, make, LOG)
    assert (other.made, names(datasets)) == (1, [first.directory.name])
    assert first.is_whole()


def test_a_source_that_changes_is_read_again(datasets: Path, tmp_path: Path) -> None:
    image = tmp_path / "images" / "cat" / "1.png"
    image.parent.mkdir(parents=True)
    image.write_text("a cat")
    options = OPTIONS.model_copy(update={"dataset": f"image_folder:{tmp_path / 'images'}"})
    first = keep_dataset(options, datasets, Maker(), LOG)
    image.with_name("2.png").write_text("another cat")
    more = Maker("more")
    assert keep_dataset(options, datasets, more, LOG).directory != first.directory
    assert more.made == 1


def test_a_known_data_set_is_taken_whatever_it_was_made_from(datasets: Path) -> None:
    made = keep_dataset(OPTIONS, datasets, Maker(), LOG)
    fingerprint = made.manifest.fingerprint
    found = find_known(fingerprint, datasets, LOG)
    assert found is not None
    assert found.directory == made.directory
    assert find_known("f" * 16, datasets, LOG) is None
    assert find_known("../etc", datasets, LOG) is None
    (made.directory / "train.gz").write_text("altered")
    assert find_known(fingerprint, datasets, LOG) is None


def test_a_source_that_making_downloads_is_known_from_then_on(datasets: Path, tmp_path: Path) -> None:
    options = OPTIONS.model_copy(update={"dataset": "mnist", "data_dir": str(tmp_path / "tfds")})
    maker = Maker()

    def download(folder: Path) -> None:
        about = tmp_path / "tfds" / "mnist" / "3.0.1" / "dataset_info.json"
        about.parent.mkdir(parents=True, exist_ok=True)
        about.write_text("{}")
        maker(folder)

    for _ in range(2):
        keep_dataset(options, datasets, download, LOG)
    assert maker.made == 1


def test_a_data_set_in_use_is_not_cleaned_up(datasets: Path) -> None:
    kept = keep_dataset(OPTIONS, datasets, Maker(), LOG)

    def age() -> None:
        long_ago = time.time() - 8 * 86_400
        for path in [*kept.directory.rglob("*"), kept.directory]:
            os.utime(path, (long_ago, long_ago))

    age()
    keep_dataset(OPTIONS, datasets, Maker(), LOG)
    assert remove_unused(datasets.parent, 7, "", dry_run=False, log=LOG).removed == []
    age()
    assert remove_unused(datasets.parent, 7, "", dry_run=False, log=LOG).removed == [f"datasets/{kept.directory.name}"]
    with pytest.raises(StageFailed, match="holds no whole data set"):
        kept_dataset(kept.manifest.fingerprint, datasets)


@pytest.mark.parametrize("fingerprint", ["0123456789abcdef", "../runs/a", ".", "/etc"])
def test_what_is_not_kept_is_said_to_be_missing(fingerprint: str, datasets: Path) -> None:
    with pytest.raises(StageFailed, match="holds no whole data set"):
        kept_dataset(fingerprint, datasets)


def test_without_a_volume_nothing_is_kept() -> None:
    with pytest.raises(StageFailed, match="no volume is mounted"):
        kept_dataset("0123456789abcdef", None)
