"""What people put into a folder of images: what is used, what is told, and what is refused."""

import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from cases.odd_images import IMAGES

from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.recipe import recipe
from kfp_image_classification.components.ingest.sharding import write_dataset
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.ingest.sources.source import Source
from kfp_image_classification.components.ingest.split_plan import plan_splits
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.step.stage_log import stage_log

TWO_CLASSES = [f"{name}/{index}.png" for name in ("cat", "dog") for index in range(5)]


def options(root: Path) -> IngestOptions:
    return IngestOptions(dataset=f"image_folder:{root}", validation_share=0.2, workers=1, seed=0)


def make(root: Path, paths: list[str]) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).write_bytes(IMAGES["one_pixel.png"])
    return root


def found(source: Source) -> dict[str, Counter[str]]:
    return {
        split: Counter(source.class_names[label] for label in examples.labels())
        for split, examples in source.splits.items()
    }


@pytest.mark.parametrize(
    ("extra", "skipped"),
    [
        ([".git/a.png", "cat/.DS_Store", "cat/._0.png", ".hidden.png"], {"hidden files and folders": 4}),
        (
            ["__MACOSX/cat/0.png", "@eaDir/x.jpg", "cat/@eaDir/0.png", "dog/Thumbs.db", "cat/desktop.ini"],
            {"files and folders that a system or a program put there": 5},
        ),
        (["empty/", "notes/"], {"folders without an image: empty": 1, "folders without an image: notes": 1}),
        (
            ["cat/a.webp", "cat/b.WebP", "dog/list.txt", "dog/README"],
            {"files that end in .webp": 2, "files that end in .txt": 1, "files without an ending": 1},
        ),
        (["cat/more/1.png", "cat/more/even/2.png"], {"files in folders within a class's folder": 2}),
        (["labels.csv", "0.png"], {"files that are in no class's folder": 2}),
    ],
    ids=["hidden", "system", "empty", "endings", "nested", "beside"],
)
@pytest.mark.parametrize("splits", [False, True])
def test_what_is_not_used_is_counted_and_no_class(
    extra: list[str], skipped: dict[str, int], splits: bool, tmp_path: Path
) -> None:
    if splits:
        make(tmp_path, [f"test/{path}" for path in TWO_CLASSES])
    root = make(tmp_path / "train" if splits else tmp_path, [*TWO_CLASSES, *extra])
    source = open_source(options(tmp_path))
    assert source.class_names == ["cat", "dog"]
    assert found(source)["train"] == {"cat": 5, "dog": 5}
    prefix = "train/" if splits else ""
    assert source.skipped == {words.replace(": ", f": {prefix}"): count for words, count in skipped.items()}
    assert (root / "cat").is_dir()


@pytest.mark.parametrize("train", ["train", "Train", "training"])
@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Validation", "dev"])
@pytest.mark.parametrize("test", ["test", "testing", "TEST", None])
def test_usual_names_of_splits_are_known_and_the_own_validation_is_used(
    train: str, validation: str, test: str | None, tmp_path: Path
) -> None:
    paths = [*[f"{train}/{path}" for path in TWO_CLASSES], f"{validation}/cat/1.png", f"{validation}/dog/1.png"]
    make(tmp_path, paths + ([f"{test}/cat/9.png", f"{test}/dog/8.png"] if test else []))
    make(tmp_path, [".cache/x/1.png", "__MACOSX/train/cat/1.png", "@eaDir/1.png"])
    source = open_source(options(tmp_path))
    assert found(source)["validation"] == {"cat": 1, "dog": 1}
    plan = plan_splits(source, options(tmp_path))
    counted = {split: sum(plan.class_counts(split).values()) for split in ("train", "validation", "test")}
    assert counted == {"train": 10 if test else 8, "validation": 2, "test": 2}


def test_classes_may_be_called_as_splits_are(tmp_path: Path) -> None:
    make(tmp_path, [f"{name}/{index}.png" for name in ("train", "bus", "test") for index in range(4)])
    assert open_source(options(tmp_path)).class_names == ["bus", "test", "train"]


@pytest.mark.parametrize(
    ("paths", "problems"),
    [
        (["cat/1.png", "cat/2.png"], ["there is one class alone, 'cat': nothing to tell it from; add another"]),
        (
            ["train/cat/1.png", "train/dog/1.png", "test/cow/1.png", "val/bee/1.png"],
            [
                "the validation split has images of 'bee', and the train split has none: add some, or remove them",
                "the test split has images of 'cow', and the train split has none: add some, or remove them",
            ],
        ),
        (
            ["train/cat/1.png", "val/cat/1.png", "extra/cat/1.png", "more/cat/2.png"],
            ["beside train and val, which by their names are splits, there are extra and more; splits are called"],
        ),
        (["val/cat/1.png", "test/cat/1.png"], ["there is test and val, and no split called train or training; add it"]),
        (["train/cat/1.png", "val/cat/1.png", "valid/cat/1.png"], ["val and valid are both the validation split"]),
        (["cat/1.webp", "dog/2.heic"], ["no images in"]),
        (["1.png", "2.png"], ["no images in"]),
        ([".hidden/1.png"], ["no images in"]),
    ],
    ids=["one class", "untrained class", "other folders", "no train", "twice", "no endings", "no folders", "hidden"],
)
def test_what_cannot_be_learnt_is_refused_in_words(paths: list[str], problems: list[str], tmp_path: Path) -> None:
    make(tmp_path, paths)
    with pytest.raises(InvalidInput) as error:
        open_source(options(tmp_path))
    assert len(error.value.problems) == len(problems)
    for told, expected in zip(error.value.problems, problems, strict=True):
        assert told.startswith(f"dataset = 'image_folder:{tmp_path}': {expected}")


def test_all_links_that_lead_nowhere_and_names_that_are_not_utf_8_are_told_at_once(tmp_path: Path) -> None:
    make(tmp_path, TWO_CLASSES)
    nothing = ["cat/gone.png", "cat/itself.png", "cat/pipe.png", "cow"]
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "cow").symlink_to(tmp_path / "nothing")
    (tmp_path / "cat" / "itself.png").symlink_to("itself.png")
    for name in (b"d\xffg", b"cat/\xfe.png"):
        path = tmp_path / os.fsdecode(name)
        path.mkdir() if b"." not in name else path.write_bytes(b"")
    with pytest.raises(InvalidInput) as error:
        open_source(options(tmp_path))
    told = [problem.removeprefix(f"dataset = 'image_folder:{tmp_path}': ") for problem in error.value.problems]
    assert sorted(told) == [
        *(f"{name} is a link that leads nowhere, or no file at all; mend or remove it" for name in nothing),
        r"the name 'cat/\udcfe.png' is not UTF-8; rename it",
        r"the name 'd\udcffg' is not UTF-8; rename it",
    ]
    assert recipe(options(tmp_path))


def test_signs_that_would_break_a_message_are_shown_as_python_writes_them(tmp_path: Path) -> None:
    make(tmp_path, TWO_CLASSES)
    for name in ("two\nlines", "red\x1b[31m", "turned\u202eround"):
        (tmp_path / "cat" / f"{name}.png").symlink_to("nothing")
    with pytest.raises(InvalidInput) as error:
        open_source(options(tmp_path))
    words = "is a link that leads nowhere, or no file at all; mend or remove it"
    assert [problem.split(": ", 1)[1] for problem in error.value.problems] == [
        rf"cat/{name}.png {words}" for name in (r"red\x1b[31m", r"turned\u202eround", r"two\nlines")
    ]


def test_of_many_kinds_that_are_not_used_ten_are_named_and_all_are_counted(tmp_path: Path) -> None:
    make(tmp_path, TWO_CLASSES + [f"empty {index:02}/" for index in range(30)])
    make(tmp_path, [f"cat/scan.{index:03}" for index in range(25)] + ["cat/other.000"])
    skipped = open_source(options(tmp_path)).skipped
    assert skipped["more folders without an image"] == 20
    assert sum(count for words, count in skipped.items() if words.startswith("folders without an image: ")) == 10
    assert (skipped["files with other endings"], sum(skipped.values())) == (15 + ("other.000" > "scan.010"), 30 + 26)
    assert len(skipped) == 22


def test_linked_classes_are_followed_and_a_change_in_them_is_seen(tmp_path: Path) -> None:
    make(tmp_path / "in", TWO_CLASSES)
    make(tmp_path / "elsewhere", ["1.png", "2.png"])
    (tmp_path / "in" / "cow").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "cat" / "back").symlink_to(tmp_path / "in")  # a circle
    asked = options(tmp_path / "in")
    assert found(open_source(asked))["train"] == {"cat": 5, "dog": 5, "cow": 2}
    before = recipe(asked)
    assert recipe(asked) == before
    (tmp_path / "elsewhere" / "2.png").write_bytes(b"another")
    changed = recipe(asked)
    (tmp_path / "elsewhere" / "3.png").write_bytes(b"new")
    assert len({before, changed, recipe(asked)}) == 3


def test_validation_and_test_have_every_class_in_its_proportion(tmp_path: Path) -> None:
    counts = {"common": 200, "rare": 10, "single": 1}
    make(tmp_path, [f"{name}/{index}.png" for name, count in counts.items() for index in range(count)])

    def split(seed: int) -> dict[str, dict[str, int]]:
        asked = options(tmp_path).model_copy(update={"seed": seed})
        plan = plan_splits(open_source(asked), asked)
        return {name: plan.class_counts(name) for name in ("train", "validation", "test")}

    assert split(0) == {
        "test": {"common": 40, "rare": 2, "single": 0},
        "validation": {"common": 32, "rare": 2, "single": 0},
        "train": {"common": 128, "rare": 6, "single": 1},
    }
    assert all(split(seed)["validation"]["rare"] == 2 for seed in range(5))


def test_the_seed_decides_which_validate_and_never_which_test(tmp_path: Path) -> None:
    make(tmp_path, [f"{name}/{index}.png" for name in "ab" for index in range(50)])

    def indices(seed: int, split: str) -> list[int]:
        asked = options(tmp_path).model_copy(update={"seed": seed})
        ((_, found),) = plan_splits(open_source(asked), asked).parts(split)
        return found.tolist()

    assert indices(0, "validation") == indices(0, "validation") != indices(1, "validation")
    assert indices(0, "test") == indices(1, "test")
    everything = [index for split in ("train", "validation", "test") for index in indices(0, split)]
    assert sorted(everything) == list(range(100))


def test_examples_come_in_an_order_that_mixes_the_classes_and_by_range(tmp_path: Path) -> None:
    make(tmp_path, [f"{name}/{index}.png" for name in "ab" for index in range(50)])
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(str(path).encode())
    train = open_source(options(tmp_path)).splits["train"]
    contents = [*train.read(0, 100)]
    names = [train.name(index).encode() for index in range(100)]
    assert contents == names
    labels = train.labels()
    assert [name.split(b"/")[-2] for name in names] == [b"ab"[label : label + 1] for label in labels]
    assert 15 < np.count_nonzero(labels[:50]) < 35
    start = random.Random(0).randrange(90)
    assert [*train.read(start, start + 10)] == contents[start : start + 10]


def test_all_files_that_cannot_be_used_are_named_at_once(tmp_path: Path) -> None:
    """Whether they go away or are damaged, and whatever comes first."""
    make(tmp_path / "in", TWO_CLASSES)
    source = open_source(options(tmp_path / "in"))
    for name in ("cat/1.png", "dog/3.png"):
        (tmp_path / "in" / name).unlink()
    for name in ("cat/2.png", "cat/0.png", "dog/2.png"):
        (tmp_path / "in" / name).write_bytes(b"no image")
    with pytest.raises(InvalidInput) as error:
        write_dataset(source, options(tmp_path / "in"), tmp_path / "out", stage_log("test"))
    said = sorted(problem.split(": ")[1].removeprefix(f"{tmp_path}/in/") for problem in error.value.problems)
    assert [words.partition(";")[0] for words in said] == [
        "cat/0.png is neither PNG nor JPEG (it begins with b'no image')",
        "cat/1.png cannot be read",
        "cat/2.png is neither PNG nor JPEG (it begins with b'no image')",
        "dog/2.png is neither PNG nor JPEG (it begins with b'no image')",
        "dog/3.png cannot be read",
    ]
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_listed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, [*TWO_CLASSES, "cow/1.png"])
    scan = os.scandir

    def denied(path: str) -> object:  # to root, who runs tests in a container, nothing is denied
        if str(path).endswith(("cat", "cow")):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(InvalidInput) as error:
        open_source(options(tmp_path))
    assert [problem.split(": ", 1)[1] for problem in error.value.problems] == [
        f"{tmp_path}/{name} cannot be listed: Permission denied; make it readable, or remove it"
        for name in ("cat", "cow")
    ]
