"""Ingest: a data set becomes sharded records and a manifest."""

from importlib import import_module
from typing import Any

_COMPONENTS = {
    "ingest": "component",
    "prepare_data": "prepare_component",
    "list_parts": "list_parts_component",
    "ingest_part": "part_component",
    "find_new_data": "new_data_component",
}


def __getattr__(name: str) -> Any:
    if name in _COMPONENTS:  # on demand, so that plain modules of this stage load without KFP
        return getattr(import_module(f"kfp_image_classification.components.ingest.{_COMPONENTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
