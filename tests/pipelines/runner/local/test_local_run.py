"""The main job as a newcomer runs it: `python pipelines/e2e.py --run`, in processes of its own."""

import inspect
import json
import re
import shlex
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from kfp import components as kfp_components
from kfp import local
from real_run import (
    REPOSITORY,
    START_SECONDS,
    assert_no_process_left,
    assert_nothing_left,
    latest,
    left_over,
    read_until,
    start,
)

from kfp_image_classification.pipelines.e2e import e2e
from kfp_image_classification.pipelines.runner.local.run_record import RunRecord
from kfp_image_classification.pipelines.runner.parameters import local_parameters

DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(e2e.pipeline_func).parameters.items()}


def test_printed_curl_line_is_answered_right(served: SimpleNamespace) -> None:
    curl = next(line for line in served.shown.splitlines() if line.strip().startswith("curl "))
    answer = subprocess.run(shlex.split(curl), cwd=served.directory, capture_output=True, text=True, check=True).stdout
    told = re.search(r"shown a (\d) and answered (\d)", served.shown)
    assert told
    assert json.loads(answer)["predictions"][0]["label"] == told[2] == told[1]


def test_summary_ranks_the_models_and_tells_the_time(served: SimpleNamespace) -> None:
    rows = re.findall(r"│ (cnn\w*)\s+│\s+([\d.]+)%", served.shown)
    assert sorted(name for name, _ in rows) == ["cnn", "cnn_dropout"]
    assert float(rows[0][1]) >= float(rows[1][1])
    for stage in ("ingest", "train cnn", "evaluate cnn", "train cnn_dropout", "select", "deploy", "whole run"):
        assert re.search(rf"│ {stage}\s+│\s+\d+\.\d", served.shown), stage


def test_logs_of_all_workers_are_shown_with_prefix(served: SimpleNamespace) -> None:
    for model in ("cnn", "cnn_dropout"):
        for worker in (0, 1):
            assert f"[train {model}] worker-{worker} | worker {worker} of 2" in served.shown


def test_pages_model_and_service_lie_where_the_summary_says(served: SimpleNamespace) -> None:
    pages = {path.name for path in (served.run / "pages").iterdir()}
    models = ("cnn", "cnn_dropout")
    assert pages == {"leaderboard.html", "dataset.html"} | {
        f"{kind}-{model}.html" for kind in ("training", "evaluation") for model in models
    }
    assert (served.run / "model" / "1" / "saved_model.pb").is_file()
    assert (served.run / "service" / "request.json").is_file()


def test_each_model_has_its_own_folder(served: SimpleNamespace) -> None:
    jobs = list(served.run.glob("*/for-loop-*/train/job"))
    assert len(jobs) == 2
    assert all(list((job / "checkpoints").glob("step-*.index")) for job in jobs)


def test_compiled_pipeline_runs_with_cached_steps_and_gate(
    served: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The committed IR itself: steps done before come from KFP's cache; below the gate, nothing is deployed."""
    monkeypatch.chdir(tmp_path)
    (cache,) = (served.directory / "runs" / ".cache").iterdir()
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(tmp_path / "runs"),
        enable_caching=True,
        cache_root=str(cache),
    )
    pipeline = kfp_components.load_component_from_file(str(REPOSITORY / "compiled" / "e2e.yaml"))
    changes = {"models": ["cnn", "cnn_dropout"], "epochs": 2, "batch_size": 50, "gate": 1.0}
    with caplog.at_level("INFO"):
        pipeline(**local_parameters({**DEFAULTS, **changes}))
    assert caplog.text.count("cache hit") == 5, caplog.text
    shown = capfd.readouterr().out
    assert "below the gate = 100.00%: nothing is deployed." in shown
    assert not list(tmp_path.glob("runs/*/deploy"))


def test_second_run_is_cached_and_leaves_nothing(cached: SimpleNamespace) -> None:
    for step in ("ingest", "train cnn", "evaluate cnn", "train cnn_dropout", "evaluate cnn_dropout"):
        assert f"[{step}] taken over from an earlier run" in cached.shown
    assert "nothing is deployed" in cached.shown
    assert "curl" not in cached.shown


def test_served_model_stays_where_no_new_one_is_better(served: SimpleNamespace) -> None:
    """The same models again: the one that was served is measured, is not beaten, and is served once more."""
    process = start(served.directory, "--seed", "0")
    shown, _ = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 0, shown
    record = RunRecord.read(latest(served.directory))
    assert record.ranking is not None
    assert record.ranking.champion is not None
    first = RunRecord.read(served.run).ranking
    assert first is not None
    assert (record.ranking.champion.uri, record.ranking.champion.stays) == (first.best.uri, True)
    assert record.ranking.champion.validation == first.best.validation, "it is measured as the new ones are"
    assert f"[find-champion] the model that was served last, {first.best.name}, is the one to beat" in shown
    assert "It is the model that is deployed already: that one stays. The model that was served last is served" in shown
    assert "deployed: " in shown
    assert record.endpoint is not None
    assert "curl" in shown


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(r"worker-0 \| worker 0 of 2", id="training", marks=pytest.mark.slow),  # test_endings.py does, too
        pytest.param(r"model server \d+ is loading", id="deploying"),
    ],
)
def test_stopped_at_any_moment_nothing_is_left(moment: str, with_cache: Path) -> None:
    process = start(with_cache, "--models", "cnn", *([] if "server" in moment else ["--epochs", "500"]))
    read_until(process, moment)
    assert left_over(with_cache)
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=20)
    assert process.returncode == 130, shown
    assert_nothing_left(with_cache)


def test_killed_run_leaves_nothing(with_cache: Path) -> None:
    """SIGKILL cannot be handled: every process has to notice by itself."""
    process = start(with_cache, "--models", "cnn", "--epochs", "500")
    read_until(process, r"worker-0 \| worker 0 of 2")
    process.kill()
    process.wait()
    assert_no_process_left(with_cache)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "no_such_data_set"], "error: dataset = 'no_such_data_set': Dataset no_such_data_set not found."),
        (["--dataset", "glue"], "error: dataset = 'glue': not an image classification data set: "),
        (
            ["--batch-size", "2000"],
            "error: batch_size = 2000: 2 workers make a global batch of 4000, more than the 3600",
        ),
        (
            ["--min-recall", '{"cat": 0.5, "7": 0.9}'],
            "error: min_recall: 'cat' is no class of the data set; its classes are 0, 1, 2",
        ),
        (["--image-size", "10"], "error: model_type = 'cnn': needs images of at least 18 pixels"),
    ],
)
def test_unusable_data_is_told_before_anything_is_made(options: list[str], message: str, tmp_path: Path) -> None:
    process = start(tmp_path, *options)
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert shown.startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_failed_step_says_why_and_exits_with_failure(failed: SimpleNamespace) -> None:
    data = failed.directory / "images"
    assert f"[ingest] error: dataset = 'image_folder:{data}': {data}/dog/7.png is empty" in failed.shown
    assert "Traceback" not in failed.shown
    assert "error: ingest failed." in failed.shown
    assert f"report: {failed.run}/report.html" in failed.shown
    assert f"All logs: {failed.run}" in failed.shown
    assert_nothing_left(failed.directory)


def test_runs_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = start(tmp_path, "--runs-dir", "file/runs")
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error: runs_dir = 'file/runs': cannot be written (Not a directory); choose another folder" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_data_set_in_parts_is_the_same(served: SimpleNamespace, tmp_path: Path) -> None:
    process = start(tmp_path, "--ingest-parts", "3", "--models", "cnn")
    shown, _ = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 0, shown
    for part in (1, 2, 3):
        assert f"[ingest-part] part {part} of 3 is written" in shown
    in_parts, at_once = (next(run.glob("*/ingest/shards/manifest.json")) for run in (latest(tmp_path), served.run))
    assert in_parts.read_text() == at_once.read_text()
    assert not list((tmp_path / "runs" / ".parts").iterdir())
    assert "Traceback" not in shown
    again = start(tmp_path, "--ingest-parts", "3", "--models", "cnn")
    shown, _ = again.communicate(timeout=START_SECONDS)
    assert again.returncode == 0, shown
    assert "is written" not in shown
