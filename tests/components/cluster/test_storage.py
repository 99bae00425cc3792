import os
import time
from pathlib import Path

import pytest
from kfp import compiler, dsl

from kfp_image_classification.components.cluster.storage import in_use, mount_storage, note_use, run_directory
from kfp_image_classification.components.step.errors import StageFailed


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STORAGE_PATH", str(tmp_path))
    return tmp_path


def test_without_a_run_or_a_volume_there_is_no_folder(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUN_ID", raising=False)
    assert run_directory() is None
    monkeypatch.setenv("RUN_ID", "a")
    monkeypatch.setenv("STORAGE_PATH", str(volume / "nothing"))
    assert run_directory() is None


def test_each_run_has_its_own_folder(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = []
    for run in ("a", "b"):
        monkeypatch.setenv("RUN_ID", run)
        folders.append(run_directory())
    assert folders == [volume / "runs" / "a", volume / "runs" / "b"]


@pytest.mark.parametrize("run", ["..", "../other", "/etc", ".hidden", "a/b"])
def test_run_id_that_leads_elsewhere_is_refused(run: str, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN_ID", run)
    with pytest.raises(StageFailed, match="not the id of a run"):
        run_directory()


def test_volume_that_cannot_be_written_is_named(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (volume / "runs").write_text("a file in the way")
    monkeypatch.setenv("RUN_ID", "a")
    with pytest.raises(StageFailed, match="cannot be written by user"):
        run_directory()


def test_use_is_noted_for_runs_alone(volume: Path) -> None:
    (volume / "runs" / "a" / "shards").mkdir(parents=True)
    note_use(volume / "runs" / "a" / "shards")
    assert (volume / "runs" / "a" / ".last-use").exists()
    note_use(volume / "runs" / "gone" / "shards")
    note_use(volume / "elsewhere")
    assert sorted(path.name for path in volume.rglob("*")) == [".last-use", "a", "runs", "shards"]


def test_use_is_noted_as_long_as_it_lasts(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kfp_image_classification.components.cluster.storage.USE_SECONDS", 0.02)
    marker = volume / "datasets" / "a" / ".last-use"
    marker.parent.mkdir(parents=True)
    with in_use(marker.parent, volume / "elsewhere"):
        for _ in range(3):
            os.utime(marker, (0, 0))
            deadline = time.monotonic() + 10
            while marker.stat().st_mtime == 0:
                assert time.monotonic() < deadline
                time.sleep(0.01)
    os.utime(marker, (0, 0))
    time.sleep(0.1)
    assert marker.stat().st_mtime == 0


def test_mounted_volume_and_run_id_are_in_the_platform_spec_alone(tmp_path: Path) -> None:
    """As arguments they would be part of KFP's cache key."""

    @dsl.component(base_image="python")
    def step():
        pass

    @dsl.pipeline(name="p")
    def pipeline(pvc: str = "claim"):
        mount_storage(step(), pvc)

    compiler.Compiler().compile(pipeline, str(tmp_path / "p.yaml"))
    spec, platform = (tmp_path / "p.yaml").read_text().split("\n---\n")
    assert "mountPath: /mnt/storage" in platform
    assert "metadata.labels['pipeline/runid']" in platform
    assert "RUN_ID" not in spec
