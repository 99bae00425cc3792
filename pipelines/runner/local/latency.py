"""How fast the deployed model answers, as this machine sees it."""

import math
import time
from collections.abc import Sequence

from kfp_image_classification.components.deploy.endpoint import Endpoint
from kfp_image_classification.components.step.direct_network import http_client
from kfp_image_classification.pipelines.runner.local.run_record import Latency

WARM_UP = 5
MOST_REQUESTS = 200
MOST_SECONDS = 2.0
FEWEST_REQUESTS = 20


def measure_latency(endpoint: Endpoint, request: bytes) -> Latency:
    """Sends single-image requests one after the other, over one connection.

    Stops after two seconds, so that a run does not get longer for it; a slow model still gets twenty requests.

    Args:
        endpoint: The service.
        request: Body of a request with one image.

    Raises:
        httpx.HTTPError: When the service does not answer well.
    """
    started = time.monotonic()
    times: list[float] = []
    with http_client(endpoint.url, headers={"Content-Type": "application/json"}, timeout=30) as client:
        for index in range(WARM_UP + MOST_REQUESTS):
            sent = time.perf_counter()
            client.post(endpoint.predict_url, content=request).raise_for_status()
            if index >= WARM_UP:
                times.append(1000 * (time.perf_counter() - sent))
            if len(times) >= FEWEST_REQUESTS and time.monotonic() - started > MOST_SECONDS:
                break
    return Latency(
        requests=len(times),
        p50=percentile(times, 0.5),
        p90=percentile(times, 0.9),
        p99=percentile(times, 0.99),
        seconds=time.monotonic() - started,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values below or at which that share of them lies."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
