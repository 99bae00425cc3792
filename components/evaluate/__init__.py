"""Evaluate: how good a model is, measured through the signature that will serve it; the deployed one as well."""

from importlib import import_module
from typing import Any

_COMPONENTS = {"evaluate": "component", "measure_champion": "champion_component"}


def __getattr__(name: str) -> Any:
    if name in _COMPONENTS:  # on demand, so that plain modules of this stage load without KFP
        return getattr(import_module(f"kfp_image_classification.components.evaluate.{_COMPONENTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
