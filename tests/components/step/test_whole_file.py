from pathlib import Path

import pytest

from kfp_image_classification.components.step.whole_file import publish_folder, write_whole


def make(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(file)
    return folder


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_file_is_written_without_a_trace_of_the_partial_one(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", "{}")
    assert tree(tmp_path) == ["a.json"]


# A folder that cannot be renamed onto its place stands for one that cannot be renamed at all.
@pytest.mark.parametrize("stands_there", [[], ["1/assets/left-over"]], ids=["renamed", "moved file by file"])
def test_folder_appears_whole(stands_there: list[str], tmp_path: Path) -> None:
    files = ["1/assets.extra/model.json", "1/saved_model.pb", "1/variables/x/y", "model.keras"]
    partial = make(tmp_path / "model.partial", *files)
    make(tmp_path / "model", *stands_there)
    publish_folder(partial, tmp_path / "model", last="1/saved_model.pb")
    assert tree(tmp_path / "model") == sorted([*files, *stands_there])
    assert not partial.exists()


def test_folder_is_not_taken_for_whole_before_it_is(tmp_path: Path) -> None:
    partial = make(tmp_path / "model.partial", "a/card.json", "b/z")
    make(tmp_path / "model", "b/z/stands-in-the-way")
    with pytest.raises(OSError, match="b/z"):
        publish_folder(partial, tmp_path / "model", last="a/card.json")
    assert not (tmp_path / "model" / "a" / "card.json").exists()
