"""What the collector tells Prometheus."""

from prometheus_client import Counter, Gauge

EVENTS = Counter("collector_events_total", "Payload events, by what became of them", ["outcome"])
WAITING_BYTES = Gauge("collector_waiting_bytes", "Payloads in memory, waiting to be written")
KEPT_BYTES = Gauge("collector_kept_bytes", "Files of the payload log, after the last one was written")
