"""Track: a pipeline run's models in MLflow, and the selected one in its model registry."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "track":  # on demand, so that plain modules of this stage load without KFP
        from kfp_image_classification.components.track.component import track

        return track
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
