"""Train: one model, trained by several workers in step as a distributed job."""

from importlib import import_module
from typing import Any

_COMPONENTS = {"train": "component"}


def __getattr__(name: str) -> Any:
    if name in _COMPONENTS:  # on demand, so that the worker starts without KFP
        return getattr(import_module(f"kfp_image_classification.components.train.{_COMPONENTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
