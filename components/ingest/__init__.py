"""Ingest: a data set becomes sharded records and a manifest."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "ingest":  # on demand, so that plain modules of this stage load without KFP
        from kfp_image_classification.components.ingest.component import ingest

        return ingest
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
