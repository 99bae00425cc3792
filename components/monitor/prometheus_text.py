"""The findings for Prometheus: text, which a step that ends hands to a Pushgateway, as nobody can scrape it."""

from urllib.parse import quote

import httpx

from kfp_image_classification.components.monitor.findings import Findings
from kfp_image_classification.components.step.direct_network import http_client

PUSH_SECONDS = 10.0


def prometheus_text(findings: Findings) -> str:
    """The findings in Prometheus' text format; the gateway adds the service."""
    told = [one for one in findings.comparisons if one.verdict != "too few"]
    lines = []
    if told:
        lines.append("# TYPE classifier_drift_index gauge")
        lines += [f'classifier_drift_index{{of="{one.name}"}} {one.index:.6g}' for one in told]
        lines.append("# TYPE classifier_drifted gauge")
        lines += [f'classifier_drifted{{of="{one.name}"}} {int(one.verdict == "drift")}' for one in told]
    if findings.live:
        lines += ["# TYPE classifier_live_accuracy gauge", f"classifier_live_accuracy {findings.live.value:.6g}"]
    lines += ["# TYPE classifier_new_images gauge", f"classifier_new_images {findings.all_new}"]
    lines += ["# TYPE classifier_monitored_images gauge"]
    lines += [f"classifier_monitored_images {max((one.images for one in findings.comparisons), default=0)}"]
    return "\n".join([*lines, ""])


def push(findings: Findings, gateway: str, service: str) -> str:
    """Replaces what the gateway knows of the service.

    Returns:
        Why it did not work; empty when it did.
    """
    url = f"{gateway.rstrip('/')}/metrics/job/monitor/service/{quote(service or 'all', safe='')}"
    try:
        with http_client(url, timeout=PUSH_SECONDS) as client:
            client.put(url, content=prometheus_text(findings)).raise_for_status()
    except (httpx.HTTPError, ValueError) as error:
        return f"push_to = {gateway!r}: {error}"
    return ""
