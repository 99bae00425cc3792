"""What kfp.local may take over: it looks only whether an artifact's folder is there."""

from collections.abc import Callable
from pathlib import Path

import pytest
from kfp import dsl, local

from kfp_image_classification.components.contracts.dataset_manifest import MANIFEST_FILE, is_whole
from kfp_image_classification.components.ingest import ingest
from kfp_image_classification.pipelines.runner.local.run_cache import forget_damaged


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], Path]:
    """Runs ingest, from the cache where that may be; returns the folder of its shards."""

    @dsl.pipeline(name="data")
    def data() -> dsl.Dataset:
        return ingest(workers=1).outputs["shards"]

    def execute(name: str) -> Path:
        cache, runner = tmp_path / "cache", local.SubprocessRunner(use_venv=False)
        forget_damaged(cache)
        local.init(runner, pipeline_root=str(tmp_path / name), enable_caching=True, cache_root=str(cache))
        return Path(data().outputs["Output"].uri)

    return execute


@pytest.mark.slow
def test_a_data_set_that_is_not_whole_any_more_is_made_anew(run: Callable[[str], Path]) -> None:
    first = run("a")
    assert run("b") == first
    next(first.glob("train-*")).unlink()
    second = run("c")
    assert second != first
    (second / MANIFEST_FILE).unlink()
    third = run("d")
    assert third != second
    assert is_whole(third)
