"""Evaluate: how good the exported model is, measured through the signature that will serve it."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "evaluate":  # on demand, so that plain modules of this stage load without KFP
        from kfp_image_classification.components.evaluate.component import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
