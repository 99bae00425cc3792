"""Select: the best of several models, and whether it is good enough to be deployed."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "select":  # on demand, so that plain modules of this stage load without KFP
        from kfp_image_classification.components.select.component import select

        return select
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
