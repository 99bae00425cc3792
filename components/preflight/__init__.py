"""Preflight: whether a cluster has what the pipeline needs, before anything is started on it."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "preflight":  # on demand, so that plain modules of this stage load without KFP
        from kfp_image_classification.components.preflight.component import preflight

        return preflight
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
