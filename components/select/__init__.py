"""Select: which model is the best, whether it is better than the deployed one by more than chance, and good enough."""

from importlib import import_module
from typing import Any

_COMPONENTS = {"select": "component", "find_champion": "champion_component"}


def __getattr__(name: str) -> Any:
    if name in _COMPONENTS:  # on demand, so that plain modules of this stage load without KFP
        return getattr(import_module(f"kfp_image_classification.components.select.{_COMPONENTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
