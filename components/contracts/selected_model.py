"""How select hands on the model that it chose: as files of its own, with a note of where they came from.

Kubeflow Pipelines takes an output under the prefix of its own run alone, and the models may come from another run's
cache; so the output cannot be the chosen artifact itself.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp_image_classification.components.step.errors import InvalidInput

# Metadata of the selected model: the URI of the Model artifact that was chosen.
SELECTED_URI = "selected_uri"
# Metadata of the selected model where it is the one that was deployed before: URI of the best new one, which did not
# beat it.
BEATEN_URI = "beaten_uri"


def copy_model(chosen: Path, output: Path) -> None:
    """Copies a model's folder.

    Args:
        chosen: The folder of the model, with its numbered versions.
        output: The folder to make.

    Raises:
        InvalidInput: When the model's files are not there any more.
    """
    if not chosen.is_dir():
        raise InvalidInput(
            f"models: the best one's files are not at {chosen} any more; train it again, not from the cache"
        )
    # A try before this one may have left some of the same files.
    shutil.copytree(chosen, output, copy_function=shutil.copyfile, dirs_exist_ok=True)


def selected_uri(uri: str, metadata: Mapping[str, Any]) -> str:
    """The URI of the model that select chose.

    Args:
        uri: Of select's output `best`.
        metadata: Of that output.
    """
    return str(metadata.get(SELECTED_URI) or uri)
