"""A data set in parts: the same whatever their number, and whatever befalls them."""

import io
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.ingest import ingest_part, list_parts, prepare_data
from kfp_image_classification.components.ingest.kept_datasets import MAKING_PREFIX
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.part_folders import PARTS_VARIABLE, parts_folder
from kfp_image_classification.components.ingest.parts import write_part
from kfp_image_classification.components.ingest.shard_plan import ShardPlan, plan_shards
from kfp_image_classification.components.ingest.sharding import write_dataset
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.ingest.unusable_images import UnusableImages
from kfp_image_classification.components.step.stage_log import stage_log

LOG = stage_log("test")
PARTS = 3


def photograph(number: int) -> bytes:
    random = np.random.default_rng(number)
    small = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
    file = io.BytesIO()
    small.resize((100 + number % 3, 80)).save(file, "JPEG" if number % 2 else "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    for number in range(90):
        path = root / f"class {number % 3}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(photograph(number))
    return root


def options_for(photographs: Path, **other: object) -> IngestOptions:
    given = {"dataset": f"image_folder:{photographs}", "validation_share": 0.2, "workers": 2, "seed": 0}
    return IngestOptions(**{**given, "ingest_parts": PARTS, "image_size": 96, **other})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The data set as it is written at once: the files by their names."""
    options, folder = options_for(photographs), tmp_path_factory.mktemp("whole") / "dataset"
    write_dataset(open_source(options), options, folder, LOG)
    assert (folder / "manifest.json").read_text().count("tfrecord-encoded-1") == 1
    return contents(folder)


class Making:
    """A data set that is written in parts."""

    def __init__(self, options: IngestOptions, root: Path) -> None:
        self.options, self.root = options, root
        folder = parts_folder(options, root)
        assert folder is not None
        self.folder = folder
        self.plan: ShardPlan = plan_shards(open_source(options), options)

    def write(self, part: int) -> None:
        write_part(self.plan, part, self.options.ingest_parts, self.folder, LOG)

    def join(self) -> dict[str, bytes]:
        write_dataset(open_source(self.options), self.options, self.root / "dataset", LOG, self.folder)
        assert [path.name for path in self.root.iterdir()] == ["dataset"], "parts are gone"
        return contents(self.root / "dataset")


@pytest.mark.parametrize("parts", [3, 4, 30])
def test_the_data_set_is_the_same_whatever_the_number_of_parts(
    parts: int, photographs: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    making = Making(options_for(photographs, ingest_parts=parts), tmp_path)
    for part in reversed(range(parts)):
        making.write(part)
    shards = [{path.name for path in folder.glob("*.tfrecord")} for folder in making.folder.iterdir()]
    assert sum(map(len, shards)) == len(set().union(*shards)) == len(whole) - 1
    assert making.join() == whole


def test_raw_digits_in_parts(tmp_path: Path) -> None:
    options = IngestOptions(dataset="mnist_5k", validation_share=0.1, workers=1, seed=0)
    write_dataset(open_source(options), options, tmp_path / "whole", LOG)
    (tmp_path / "parts").mkdir()
    making = Making(options.model_copy(update={"ingest_parts": 4}), tmp_path / "parts")
    for part in range(4):
        making.write(part)
    assert making.join() == contents(tmp_path / "whole")


def of_part(making: Making, part: int) -> Path:
    return making.folder / f"part-{part}"


def not_written(making: Making) -> None:
    shutil.rmtree(of_part(making, 1))


def killed(making: Making) -> None:
    """In the middle of its first shard, and nobody cleaned up."""
    left = of_part(making, 1).rename(making.folder / f"{MAKING_PREFIX}killed")
    (left / "part.json").unlink()
    path = min(left.glob("*.tfrecord"))
    path.write_bytes(path.read_bytes()[:100])


def half_published(making: Making) -> None:
    """On a volume that moves files one by one: what tells that a part is whole comes last."""
    (of_part(making, 1) / "part.json").unlink()


def truncated(making: Making) -> None:
    path = min(of_part(making, 1).glob("*.tfrecord"))
    path.write_bytes(path.read_bytes()[:-1])


def without_notes(making: Making) -> None:
    (of_part(making, 1) / "notes.npy").write_bytes(b"")


def run_twice(making: Making) -> None:
    making.write(1)


@pytest.mark.parametrize("is_retried", [True, False])
@pytest.mark.parametrize("befalls", [not_written, killed, half_published, truncated, without_notes, run_twice])
def test_what_befalls_a_part_harms_nothing(
    befalls: Callable[[Making], None], is_retried: bool, photographs: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    making = Making(options_for(photographs), tmp_path)
    for part in range(PARTS):
        making.write(part)
    befalls(making)
    if is_retried:
        making.write(1)
    assert making.join() == whole


def test_a_part_that_runs_twice_at_the_same_time(photographs: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    making = Making(options_for(photographs), tmp_path)
    threads = [threading.Thread(target=making.write, args=(part,)) for part in (0, 1, 1, 2, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in making.folder.iterdir()) == [f"part-{part}" for part in range(PARTS)]
    assert making.join() == whole


def test_a_part_names_its_own_unusable_images(photographs: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(photographs, tmp_path / "in")
    (bad / "class 0" / "3.jpg").write_bytes(b"GIF89a")
    (bad / "class 2" / "5.jpg").write_bytes(photograph(5)[:-50])
    making = Making(options_for(bad), tmp_path / "out")
    named: list[str] = []
    for part in range(PARTS):
        try:
            making.write(part)
        except UnusableImages as error:
            named += error.problems
    assert sorted(problem.split(" is ")[1].split(";")[0] for problem in named) == [
        "a GIF image",
        "a damaged JPEG, or one that was not copied to its end",
    ]
    assert not list(making.folder.glob(f"{MAKING_PREFIX}*"))


def test_steps_on_a_volume(
    photographs: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN_ID", "run")
    monkeypatch.setenv("STORAGE_PATH", str(tmp_path))
    given = options_for(photographs).model_dump()
    listed = list_parts.python_func(**given)
    assert [name.partition("-")[0] for name in listed] == ["0", "1", "2"]
    assert not set(listed) & set(list_parts.python_func(**given)), "KFP would take them from its cache"
    for name in listed[1:]:
        ingest_part.python_func(part=name, **given)
    fingerprint = prepare_data.python_func(**given)
    folder = tmp_path / "datasets" / fingerprint
    assert [path.name for path in folder.parent.iterdir()] == [fingerprint]
    assert contents_of_shards(folder) == {name: content for name, content in whole.items() if name != "manifest.json"}
    assert list_parts.python_func(**given) == ["none"]
    ingest_part.python_func(part="none", **given)
    assert prepare_data.python_func(**{**given, "ingest_parts": 1}) == fingerprint


def contents_of_shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tfrecord")}


def test_parts_need_a_folder_that_steps_share(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = options_for(photographs)
    monkeypatch.delenv(PARTS_VARIABLE, raising=False)
    assert parts_folder(given, None) is None
    ingest_part.python_func(part="0", **given.model_dump())
    monkeypatch.setenv(PARTS_VARIABLE, str(tmp_path))
    assert parts_folder(given.model_copy(update={"ingest_parts": 1}), None) is None
    ingest_part.python_func(part="0", **given.model_dump())
    folder = parts_folder(given, None)
    assert folder is not None
    assert [path.name for path in folder.iterdir()] == ["part-0"]


def test_a_data_set_is_whole_after_joining(photographs: Path, tmp_path: Path) -> None:
    making = Making(options_for(photographs), tmp_path)
    making.join()
    assert Dataset(tmp_path / "dataset").is_whole()
