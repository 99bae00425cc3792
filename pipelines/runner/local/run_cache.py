"""Which steps a local run may take over from earlier ones."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp_image_classification import components
from kfp_image_classification.components.contracts.dataset_manifest import is_whole
from kfp_image_classification.components.ingest.recipe import source_state
from kfp_image_classification.components.train.model_settings import ModelSettings, own_package
from kfp_image_classification.components.train.starting_point import find_named
from kfp_image_classification.pipelines.runner.parameters import train_options


def forget_damaged(cache: Path) -> None:
    """Keeps the cache from handing on a data set whose shards are gone or altered: kfp.local sees only the folder."""
    for entry in cache.glob("*.json"):
        shards = json.loads(entry.read_text(encoding="utf-8")).get("shards")
        if shards and Path(shards["uri"]).exists() and not is_whole(shards["uri"]):
            print(f"{shards['uri']} is damaged: the data set is made anew", flush=True)
            entry.unlink()


def cache_key(parameters: Mapping[str, Any]) -> str:
    """What KFP's own cache key does not see: all code, TensorFlow's version, and the data's files."""
    digest = hashlib.sha256(importlib.metadata.version("tensorflow").encode())
    root = Path(components.__file__).parent
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.j2")]):
        digest.update(path.read_bytes())
    for model in map(ModelSettings.parse, parameters["models"]):
        if model.is_own and (package := own_package(model.architecture)):
            for path in sorted(package.rglob("*.py")) if package.is_dir() else [package]:
                digest.update(path.read_bytes())
    for weights in map(find_named, (train_options(parameters, model) for model in parameters["models"])):
        if weights:
            digest.update(weights.content)
    for line in source_state(str(parameters["dataset"]), str(parameters["data_dir"])):
        digest.update(line)
    return digest.hexdigest()[:16]
