"""What the model server counts, for Prometheus at `/metrics`. docs/serving.md explains each."""

from collections.abc import Iterable, Iterator
from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  # a time stamp for every series, which no graph shows

REQUESTS = Counter("classifier_requests", "Predictions answered, also with an error.", ["protocol", "status"])
SECONDS = Histogram(
    "classifier_request_seconds",
    "From the request's first byte to the answer.",
    ["protocol"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
IN_FLIGHT = Gauge("classifier_in_flight_requests", "Predictions being answered.")
QUEUE_IMAGES = Gauge("classifier_queue_images", "Images waiting or being computed.")
BATCH_IMAGES = Histogram(
    "classifier_batch_images", "Images computed at once.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
MODEL_INFO = Gauge("classifier_model_info", "1 for the version that answers.", ["version", "model_type", "backend"])
PAYLOAD_EVENTS = Counter("classifier_payload_events", "Payload log events by what became of them.", ["outcome"])


@cache  # a series is looked up in a dictionary of text, under a lock
def _series(protocol: str, status: str) -> tuple[Counter, Histogram]:
    return REQUESTS.labels(protocol, status), SECONDS.labels(protocol)


def count_request(protocol: str, status: str, seconds: float) -> None:
    """Counts a prediction that was answered.

    Args:
        protocol: `v1`, `v2` or `grpc`.
        status: HTTP status, or gRPC's code by name.
        seconds: From the request's first byte to the answer.
    """
    requests, durations = _series(protocol, status)
    requests.inc()
    durations.observe(seconds)


# What several processes have in common, and is not added up.
_ALIKE = ("classifier_model_info", "process_start_time_seconds", "process_max_fds", "python_info")


class _AddedUp(Collector):
    def __init__(self, texts: Iterable[bytes]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        for text in self._texts:
            for family in text_string_to_metric_families(text.decode()):
                families.setdefault(family.name, family)
                series = values.setdefault(family.name, {})
                for sample in family.samples:
                    key = sample.name, tuple(sample.labels.items())
                    alike = family.name in _ALIKE
                    series[key] = max(series.get(key, 0), sample.value) if alike else series.get(key, 0) + sample.value
        for name, family in families.items():
            whole = Metric(name, family.documentation, family.type)
            for (sample_name, labels), value in values[name].items():
                whole.add_sample(sample_name, dict(labels), value)
            yield whole


def added_up(texts: Iterable[bytes]) -> bytes:
    """The metrics of several processes as one's, all in Prometheus' format."""
    registry = CollectorRegistry()
    registry.register(_AddedUp(texts))
    return generate_latest(registry)
