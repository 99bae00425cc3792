"""Deploy: the selected model becomes a service that answers predictions."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "deploy":  # on demand, so that the model server starts without KFP
        from components.deploy.component import deploy

        return deploy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
