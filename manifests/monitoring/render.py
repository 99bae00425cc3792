"""Writes what a program has to write here: the Grafana dashboard, and the alerts as a PrometheusRule.

    python manifests/monitoring/render.py

To change a graph, change its line below; to change an alert, change alerts.yml.
"""

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COLUMNS = 24  # of Grafana's grid
SERVICE = 'service=~"$service"'
WORKER = 'container=~"tensorflow|node"'  # the names that TFJob and TrainJob ask of a worker's container
FAILED = 'status=~"5..|INTERNAL|UNKNOWN|UNAVAILABLE|RESOURCE_EXHAUSTED"'
REFUSED = 'status=~"4..|INVALID_ARGUMENT|NOT_FOUND"'


def _rate(metric: str, matchers: str) -> str:
    return f"rate({metric}{{{matchers}}}[$__rate_interval])"


def _share(status: str) -> str:
    part = f"sum({_rate('classifier_requests_total', f'{SERVICE},{status}')}) or vector(0)"
    return f"({part}) / sum({_rate('classifier_requests_total', SERVICE)})"


def _quantile(quantile: float) -> str:
    buckets = _rate("classifier_request_seconds_bucket", SERVICE)
    return f"histogram_quantile({quantile}, sum by (le, protocol) ({buckets}))"


def _tfjobs(what: str) -> str:
    metric = f"training_operator_jobs_{what}_total"
    return f'sum(increase({metric}{{framework="tensorflow"}}[$__rate_interval]))'


@dataclass(frozen=True)
class Graph:
    """A picture; `lines` are PromQL expressions by the legend of what they return, `unit` is one of Grafana's."""

    title: str
    unit: str
    lines: dict[str, str]


ROWS = {
    "Serving": [
        Graph(
            "Predictions a second",
            "reqps",
            {
                "{{protocol}} {{status}}": f"sum by (protocol, status) ({_rate('classifier_requests_total', SERVICE)})",
            },
        ),
        Graph("Share that fails or is refused", "percentunit", {"fails": _share(FAILED), "refused": _share(REFUSED)}),
        Graph(
            "Time to answer",
            "s",
            {
                "{{protocol}} median": _quantile(0.5),
                "{{protocol}} 90th percentile": _quantile(0.9),
                "{{protocol}} 99th percentile": _quantile(0.99),
            },
        ),
        Graph("Images waiting or being computed", "short", {"{{instance}}": f"classifier_queue_images{{{SERVICE}}}"}),
        Graph("Predictions being answered", "short", {"{{instance}}": f"classifier_in_flight_requests{{{SERVICE}}}"}),
        Graph(
            "Images computed at once, on average",
            "short",
            {
                "{{service}}": f"sum by (service) ({_rate('classifier_batch_images_sum', SERVICE)})"
                f" / sum by (service) ({_rate('classifier_batch_images_count', SERVICE)})",
            },
        ),
        Graph(
            "Servers by model",
            "short",
            {
                "{{model_type}} version {{version}} ({{backend}})": "count by (model_type, version, backend) "
                f"(classifier_model_info{{{SERVICE}}})",
            },
        ),
        Graph(
            "Processors used by servers",
            "short",
            {"{{instance}}": _rate("process_cpu_seconds_total", f'job="model-server",{SERVICE}')},
        ),
        Graph(
            "Memory of servers",
            "bytes",
            {"{{instance}}": f'process_resident_memory_bytes{{job="model-server",{SERVICE}}}'},
        ),
    ],
    "Training": [
        Graph("TFJobs", "short", {what: _tfjobs(what) for what in ("created", "successful", "failed", "restarted")}),
        Graph(
            "TrainJobs that ended (each is a JobSet)",
            "short",
            {"completed": "sum(jobset_completed_total)", "failed": "sum(jobset_failed_total)"},
        ),
        Graph(
            "Workers by phase",
            "short",
            {
                "{{phase}}": "sum by (phase) (max by (namespace, pod, phase) (kube_pod_status_phase)"
                f" and on (namespace, pod) kube_pod_container_resource_requests{{{WORKER}}})",
            },
        ),
        Graph(
            "Processors used by workers",
            "short",
            {"{{pod}}": f"sum by (pod) ({_rate('container_cpu_usage_seconds_total', WORKER)})"},
        ),
        Graph(
            "Memory of workers",
            "bytes",
            {"{{pod}}": f"sum by (pod) (container_memory_working_set_bytes{{{WORKER}}})"},
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """The dashboard in Grafana's JSON model: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/"""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, graphs in ROWS.items():
        panels.append(
            {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": _place(0, top, COLUMNS, 1)}
        )
        top += 1
        width, height = COLUMNS // 3, 8
        for index, graph in enumerate(graphs):
            panels.append(_panel(graph, _place(index % 3 * width, top + index // 3 * height, width, height)))
        top += -(-len(graphs) // 3) * height
    return {
        "title": "Image classification",
        "uid": "kfp-image-classification",
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "templating": {"list": [_data_source(), _service()]},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, start=1)],
    }


def prometheus_rule() -> str:
    """The alerts as a custom resource of the Prometheus Operator."""
    head = textwrap.dedent(
        """\
        # Written by render.py from alerts.yml.
        apiVersion: monitoring.coreos.com/v1
        kind: PrometheusRule
        metadata:
          name: image-classification
        spec:
        """
    )
    return head + textwrap.indent((HERE / "alerts.yml").read_text(encoding="utf-8"), "  ")


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(graph: Graph, place: dict[str, int]) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": graph.title,
        "gridPos": place,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "fieldConfig": {"defaults": {"unit": graph.unit, "min": 0, "custom": {"fillOpacity": 10}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend}
            for index, (legend, expression) in enumerate(graph.lines.items())
        ],
    }


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _service() -> dict[str, Any]:
    return {
        "name": "service",
        "label": "Service",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": "label_values(classifier_model_info, service)",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


if __name__ == "__main__":
    (HERE / "dashboard.json").write_text(json.dumps(dashboard(), indent=2) + "\n", encoding="utf-8")
    (HERE / "prometheus-rule.yaml").write_text(prometheus_rule(), encoding="utf-8")
