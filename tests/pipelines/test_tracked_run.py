"""Whole runs that are tracked in MLflow, their steps coming from the cache of an untracked one."""

import http.server
import re
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from real_run import START_SECONDS, latest, start


def test_cached_steps_are_tracked_where_the_environment_says(
    served: SimpleNamespace, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not list(served.run.glob("*/track")), "nobody asked for tracking"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    process = start(served.directory, "--mlflow-experiment", "whole run", "--service-name", "tracked-digits")
    shown, _ = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 0, shown
    assert "[train cnn] taken over from an earlier run" in shown
    assert f"[track] tracking in {mlflow_server}/#/experiments/" in shown
    assert re.search(r"│ track\s+│\s+\d+\.\d", shown), shown

    from mlflow import MlflowClient

    client = MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name("whole run")
    runs = {run.data.tags.get("model_type", "parent"): run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"parent", "cnn", "cnn_dropout"}
    for name in ("cnn", "cnn_dropout"):
        told = re.search(rf"│ {name}\s+│\s+[\d.]+%[^│]*│\s+([\d.]+)%", shown)
        assert told
        assert runs[name].data.metrics["evaluate/test_accuracy"] == pytest.approx(float(told[1]) / 100, abs=1e-4)
        assert len(client.get_metric_history(runs[name].info.run_id, "train/val_loss")) == 2
    champion = client.get_model_version_by_alias("tracked-digits", "champion")
    assert champion.run_id == runs[runs["parent"].data.tags["selected"]].info.run_id


def test_failed_tracking_fails_the_run_but_not_the_deployment(served: SimpleNamespace) -> None:
    class Forgetful(http.server.BaseHTTPRequestHandler):
        """Lets in who asks first, and nobody after that."""

        asked = 0

        def do_POST(self) -> None:
            Forgetful.asked += 1
            self.send_response(200 if Forgetful.asked == 1 else 401)
            self.end_headers()
            self.wfile.write(b"{}" if Forgetful.asked == 1 else b"who are you?")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forgetful) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        process = start(served.directory, "--mlflow-uri", uri)
        shown, _ = process.communicate(timeout=START_SECONDS)
        server.shutdown()
    assert process.returncode == 1, shown
    assert f"[track] error: mlflow_uri = '{uri}': the MLflow server wants credentials" in shown
    assert "Traceback" not in shown
    run = latest(served.directory)
    assert (run / "service" / "request.json").is_file()
    assert "wants credentials" in (run / "report.html").read_text()


def test_server_for_tracking_is_asked_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    process = start(tmp_path, "--mlflow-uri", "http://127.0.0.1:9")
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert shown.startswith("error: mlflow_uri = 'http://127.0.0.1:9': no MLflow server can be reached there;")
    assert list(tmp_path.iterdir()) == []
