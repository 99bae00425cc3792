"""Ingest from the cache after a clean-up of the volume, as steps; kfp.local's cache stands in for KFP's."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kfp_image_classification.components.cleanup.unused_folders import remove_unused
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.step.stage_log import stage_log

# The first two steps of the pipeline, mounted and cached as there; what a later step would be handed is printed.
PROGRAM = """
import sys
from kfp import dsl, local
from kfp_image_classification.components.ingest import ingest, prepare_data

@dsl.pipeline(name="first-steps")
def first_steps() -> dsl.Dataset:
    prepared = prepare_data(pvc="claim").set_caching_options(False)
    return ingest(fingerprint=prepared.output).outputs["shards"]

runner = local.SubprocessRunner(use_venv=False)
local.init(runner, pipeline_root=sys.argv[1], enable_caching=True, cache_root=sys.argv[2])
print("SHARDS", first_steps().outputs["Output"].uri)
"""


def run(run_id: str, tmp_path: Path) -> str:
    """Runs the steps as a run of that name; returns where the artifact of ingest is."""
    volume = tmp_path / "volume"
    volume.mkdir(exist_ok=True)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "artifacts" / run_id, tmp_path / "cache"],
        env={**os.environ, "RUN_ID": run_id, "STORAGE_PATH": str(volume), "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("SHARDS ")]
    return line.removeprefix("SHARDS ")


def clean_up(volume: Path) -> list[str]:
    """A week later."""
    long_ago = time.time() - 8 * 86_400
    for path in [*volume.rglob("*")]:
        os.utime(path, (long_ago, long_ago))
    return remove_unused(volume, 7, "", dry_run=False, log=stage_log("cleanup")).removed


@pytest.mark.slow
def test_what_is_cached_and_what_is_kept_cannot_disagree(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    first = run("a", tmp_path)
    kept = Dataset(first)
    fingerprint = kept.manifest.fingerprint
    assert kept.manifest.root == str(volume / "datasets" / fingerprint)
    assert [path.name for path in Path(first).iterdir()] == ["manifest.json"], "the shards are on the volume alone"

    assert clean_up(volume) == [f"datasets/{fingerprint}"]
    after_clean_up = run("b", tmp_path)
    assert after_clean_up == first, "ingest, and so train, are taken from the cache"
    assert Dataset(after_clean_up).is_whole(), "and its data set is there again"

    next(Path(kept.manifest.root).glob("train-*")).write_bytes(b"damaged")
    assert run("c", tmp_path) == first
    assert Dataset(first).is_whole()

    shutil.rmtree(tmp_path / "artifacts" / "a")  # and where the artifact goes, nothing is left of it
    fresh = run("d", tmp_path)
    assert fresh != first
    assert json.loads(Path(fresh, "manifest.json").read_text())["root"] == kept.manifest.root
    assert Dataset(fresh).is_whole()
