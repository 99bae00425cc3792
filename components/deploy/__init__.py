"""Deploy: the selected model becomes a service that answers predictions."""

from importlib import import_module
from typing import Any

_COMPONENTS = {"deploy": "component", "promote": "promote_component", "rollback": "rollback_component"}


def __getattr__(name: str) -> Any:
    if name in _COMPONENTS:  # on demand, so that the model server starts without KFP
        return getattr(import_module(f"kfp_image_classification.components.deploy.{_COMPONENTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
