"""Monitor: whether a service is asked about what its model has learnt from, and how often it is right."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "monitor":  # on demand, so that plain modules of this stage load without KFP
        from kfp_image_classification.components.monitor.component import monitor

        return monitor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
