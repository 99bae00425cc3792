"""Cleanup: what nobody uses any more goes from the shared volume."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "cleanup":  # on demand, so that plain modules of this stage load without KFP
        from kfp_image_classification.components.cleanup.component import cleanup

        return cleanup
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
