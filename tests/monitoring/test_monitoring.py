"""A real Prometheus, with the configuration of manifests/monitoring, scrapes the real model server."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from kustomize import kustomized
from repository import REPOSITORY
from skips import tool

from kfp_image_classification.components.deploy.endpoint import Endpoint
from kfp_image_classification.components.deploy.local_server import deploy_locally, stop_server
from kfp_image_classification.components.deploy.options import DeployOptions
from kfp_image_classification.components.step.stage_log import stage_log

MONITORING = REPOSITORY / "manifests" / "monitoring"
PANELS = [panel for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"] if "targets" in panel]
EXPRESSIONS = {
    f"{panel['title']}: {target['legendFormat']}": target["expr"] for panel in PANELS for target in panel["targets"]
}
ALERTS = {
    rule["alert"]: rule["expr"]
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
# What others than the model server call things; the tests of collector and monitor look at what these two tell.
CLUSTER_METRICS = {
    "collector": {"collector_events_total"},
    "monitor": {"classifier_drifted"},
    "Pushgateway": {"push_time_seconds"},
    "Prometheus": {"up"},
    "Training Operator": {
        f"training_operator_jobs_{what}_total" for what in ["created", "successful", "failed", "restarted"]
    },
    "JobSet": {"jobset_completed_total", "jobset_failed_total"},
    "kube-state-metrics": {
        "kube_pod_container_resource_requests",
        "kube_pod_container_status_last_terminated_reason",
        "kube_pod_container_status_terminated_reason",
        "kube_pod_status_phase",
    },
    "kubelet": {"container_cpu_usage_seconds_total", "container_memory_working_set_bytes"},
}
SERVING = [panel["title"] for panel in PANELS][:9]


@pytest.fixture(scope="module")
def endpoint(trained: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A model server that has answered some requests, and refused one."""
    directory = tmp_path_factory.mktemp("service") / "endpoint"
    deployed = deploy_locally(trained.model, DeployOptions(service_name="digits"), directory, stage_log("test"))
    yield deployed
    stop_server(deployed.pid)


def ask(endpoint: Endpoint) -> None:
    image = [[0] * 28] * 28
    for body, status in (({"instances": [image, image]}, 200), ({"instances": ["no image"]}, 400)):
        assert httpx.post(endpoint.predict_url, json=body).status_code == status


@pytest.fixture(scope="module")
def prometheus(
    endpoint: Endpoint, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Prometheus with the committed configuration, but for the server's port and the patience."""
    program = tool("prometheus")
    directory = tmp_path_factory.mktemp("prometheus")
    config = (MONITORING / "prometheus.yml").read_text()
    config = config.replace("127.0.0.1:8080", endpoint.url.removeprefix("http://")).replace(
        "_interval: 5s", "_interval: 1s"
    )
    (directory / "prometheus.yml").write_text(config)
    shutil.copy(MONITORING / "alerts.yml", directory)
    port = free_port()
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        # A rate needs two samples of a series.
        wait_for(lambda: samples(url, 'up{job="model-server"}') >= 1, directory / "log")
        ask(endpoint)
        wait_for(lambda: samples(url, "classifier_requests_total") >= 1, directory / "log")
        ask(endpoint)
        wait_for(lambda: samples(url, "classifier_requests_total") >= 3, directory / "log")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def wait_for(condition: Any, log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise AssertionError(log.read_text())


def query(url: str, expression: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", answer
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def samples(url: str, series: str) -> int:
    """How often the least known of the series was scraped."""
    return min((int(each["value"][1]) for each in query(url, f"count_over_time({series}[5m])")), default=0)


def as_grafana_sends(expression: str) -> str:
    return expression.replace("$__rate_interval", "1m").replace("$service", ".*")


def metric_names(expression: str) -> set[str]:
    """The metrics of an expression: what is left without strings, matchers, lists of labels, and words of PromQL."""
    bare = re.sub(r'"[^"]*"|\$\w+', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(?:by|on|without|ignoring)\s*\([^)]*\)|\boffset \w+", "", bare)
    bare = re.sub(r"\w+\s*\(", "(", bare)  # functions and aggregations
    return set(re.findall(r"[a-z_][a-z0-9_:]*", bare)) - {"and", "or", "unless"}


def test_target_is_scraped(prometheus: str) -> None:
    targets = httpx.get(f"{prometheus}/api/v1/targets").json()["data"]["activeTargets"]
    by_job = {target["labels"]["job"]: target for target in targets}
    assert set(by_job) == {"model-server", "pushgateway"}
    target = by_job["model-server"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert target["labels"]["service"] == "image-classifier"


def test_alerts_are_loaded_and_still(prometheus: str) -> None:
    groups = httpx.get(f"{prometheus}/api/v1/rules").json()["data"]["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(rules) == set(ALERTS)
    for name in ("ModelServerDown", "ModelNotReady", "ModelServerSlow", "ModelServerQueueFilling"):
        assert query(prometheus, ALERTS[name]) == [], name


@pytest.mark.parametrize("title", EXPRESSIONS)
def test_every_graph_can_be_drawn(prometheus: str, title: str) -> None:
    result = query(prometheus, as_grafana_sends(EXPRESSIONS[title]))
    if title.split(":")[0] in SERVING:
        assert result, title
        assert all(each["value"][1] != "NaN" for each in result), result


def test_requests_are_counted_by_protocol_and_status(prometheus: str) -> None:
    counted = query(prometheus, "sum by (protocol, status) (classifier_requests_total)")
    found = {(each["metric"]["protocol"], each["metric"]["status"]): int(each["value"][1]) for each in counted}
    assert found[("v1", "400")] == 2
    assert found[("v1", "200")] >= 2


def test_graphs_and_alerts_use_only_metrics_that_exist(endpoint: Endpoint) -> None:
    ask(endpoint)
    told = httpx.get(f"{endpoint.url}/metrics").text
    exposed = set(re.findall(r"^(?:# TYPE )?([a-z_]+)", told, re.MULTILINE))
    known = exposed.union(*CLUSTER_METRICS.values())
    used = {name: metric_names(expression) for name, expression in {**EXPRESSIONS, **ALERTS}.items()}
    assert {name: metrics - known for name, metrics in used.items() if metrics - known} == {}
    assert {metric for metrics in used.values() for metric in metrics} >= {
        "classifier_requests_total",
        "classifier_request_seconds_bucket",
        "classifier_queue_images",
        "classifier_batch_images_sum",
        "classifier_in_flight_requests",
        "classifier_model_info",
    }


def test_alerts_fire_when_they_should() -> None:
    test = Path(__file__).with_name("alerts_test.yml")
    result = subprocess.run([tool("promtool"), "test", "rules", test], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_is_tested() -> None:
    assert set(re.findall(r"alertname: (\w+)", Path(__file__).with_name("alerts_test.yml").read_text())) == set(ALERTS)


def test_written_files_are_fresh(tmp_path: Path) -> None:
    copy = shutil.copytree(MONITORING, tmp_path / "monitoring")
    subprocess.run([sys.executable, copy / "render.py"], check=True)
    for name in ("dashboard.json", "prometheus-rule.yaml"):
        assert (copy / name).read_text() == (MONITORING / name).read_text(), f"{name} is stale: run `make dashboard`"
    rule = yaml.safe_load((MONITORING / "prometheus-rule.yaml").read_text())
    assert rule["spec"] == yaml.safe_load((MONITORING / "alerts.yml").read_text())


def test_kustomization_brings_everything() -> None:
    objects = {each["kind"]: each for each in kustomized(MONITORING)}
    assert set(objects) == {"PodMonitor", "ServiceMonitor", "PrometheusRule", "ConfigMap"}
    assert {each["metadata"]["namespace"] for each in objects.values()} == {"kubeflow"}
    assert json.loads(objects["ConfigMap"]["data"]["dashboard.json"])["uid"] == "kfp-image-classification"
