import os
import time
from pathlib import Path

import pytest

from kfp_image_classification.components.cleanup import cleanup
from kfp_image_classification.components.cleanup.unused_folders import remove_unused
from kfp_image_classification.components.cluster.storage import note_use, run_directory
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.step.stage_log import stage_log

LOG = stage_log("test")
DAY = 86_400


def run_folder(volume: Path, name: str, days: float) -> Path:
    """A run's folder whose files were all written so many days ago."""
    folder = volume / "runs" / name
    (folder / "job" / "checkpoints").mkdir(parents=True)
    (folder / "job" / "checkpoints" / "step").write_text("x" * 100)
    (folder / ".last-use").touch()
    age(folder, days)
    return folder


def age(folder: Path, days: float) -> None:
    at = time.time() - days * DAY
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (at, at))


def left(volume: Path) -> list[str]:
    return sorted(path.name for path in (volume / "runs").iterdir())


def test_old_runs_go_and_those_in_use_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_PATH", str(tmp_path))
    run_folder(tmp_path, "old", 8)
    run_folder(tmp_path, "young", 6)
    run_folder(tmp_path, "own", 8)
    training = run_folder(tmp_path, "training", 8)
    (training / "job" / "checkpoints" / "step").touch()
    cached = run_folder(tmp_path, "cached", 8)
    note_use(cached / "shards")
    done = remove_unused(tmp_path, 7, "own", dry_run=False, log=LOG)
    assert (done.removed, done.kept, done.freed_bytes) == (["runs/old"], 4, 100)
    assert left(tmp_path) == ["cached", "own", "training", "young"]


def test_dry_run_removes_nothing(tmp_path: Path) -> None:
    run_folder(tmp_path, "old", 8)
    assert remove_unused(tmp_path, 7, "", dry_run=True, log=LOG).removed == ["runs/old"]
    assert left(tmp_path) == ["old"]


def test_a_dry_run_says_what_would_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STORAGE_PATH", str(tmp_path))
    run_folder(tmp_path, "old", 8)
    run_folder(tmp_path, "young", 1)
    assert cleanup.python_func(days=7.0, dry_run=True) == 1
    told = capsys.readouterr().out
    assert "runs/old: would be removed, last used 8.0 days ago, 100 bytes" in told
    assert "folders: 1 would be removed (100 bytes), 1 kept" in told
    assert cleanup.python_func(days=7.0) == 1
    told = capsys.readouterr().out
    assert "runs/old: removed, last used 8.0 days ago, 100 bytes" in told
    assert "would" not in told


def test_a_folder_that_a_run_begins_to_use_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at its age and its removal."""
    monkeypatch.setenv("STORAGE_PATH", str(tmp_path))
    folder = run_folder(tmp_path, "old", 8)
    rename = Path.rename

    def used_just_before(path: Path, target: Path) -> Path:
        if path == folder:
            note_use(folder)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", used_just_before)
    done = remove_unused(tmp_path, 7, "", dry_run=False, log=LOG)
    assert (done.removed, done.kept, left(tmp_path)) == ([], 1, ["old"])
    assert (folder / "job" / "checkpoints" / "step").exists()


def test_half_removed_run_is_removed(tmp_path: Path) -> None:
    run_folder(tmp_path, "old.removed", 0)
    assert remove_unused(tmp_path, 7, "", dry_run=False, log=LOG).removed == ["runs/old.removed"]
    assert left(tmp_path) == []


def test_links_are_neither_followed_nor_removed(tmp_path: Path) -> None:
    elsewhere = run_folder(tmp_path / "elsewhere", "precious", 100)
    folder = run_folder(tmp_path / "volume", "old", 8)
    (folder / "link").symlink_to(elsewhere)
    age(folder, 8)
    (tmp_path / "volume" / "runs" / "link").symlink_to(elsewhere)
    remove_unused(tmp_path / "volume", 7, "", dry_run=False, log=LOG)
    assert left(tmp_path / "volume") == ["link"]
    assert (elsewhere / "job" / "checkpoints" / "step").read_text() == "x" * 100


@pytest.mark.parametrize(("days", "problem"), [(0, "days = 0"), (-1, "days = -1"), (float("nan"), "days = nan")])
def test_bad_age(days: float, problem: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=problem):
        remove_unused(tmp_path, days, "", dry_run=False, log=LOG)


def test_no_volume(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no volume is mounted at"):
        remove_unused(tmp_path / "nothing", 7, "", dry_run=False, log=LOG)


def test_empty_volume(tmp_path: Path) -> None:
    assert remove_unused(tmp_path, 7, "", dry_run=False, log=LOG).removed == []


def test_new_run_is_not_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_PATH", str(tmp_path))
    monkeypatch.setenv("RUN_ID", "run-1")
    assert run_directory() == tmp_path / "runs" / "run-1"
    assert remove_unused(tmp_path, 1, "", dry_run=False, log=LOG).kept == 1
