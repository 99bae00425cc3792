"""Train: one model, trained by several workers in step as a distributed job."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "train":  # on demand, so that the worker starts without KFP
        from kfp_image_classification.components.train.component import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
