"""What the model server counts, for Prometheus at `/metrics`. docs/serving.md explains each."""

from functools import cache

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

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
