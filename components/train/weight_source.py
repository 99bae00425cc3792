"""Where weights can come from: a Model artifact of this package, or a file of Keras; on a disk, or in a bucket."""

import hashlib
import io
import json
import os
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from kfp_image_classification.components.contracts.buckets import bucket_scheme
from kfp_image_classification.components.contracts.folders import Folder, FolderFailed, open_folder
from kfp_image_classification.components.contracts.model_card import KERAS_MODEL, MODEL_CARD, ModelCard
from kfp_image_classification.components.step.errors import InvalidInput

NONE, IMAGENET = "none", "imagenet"
# A whole model first: it is read with Keras' safe mode. Nothing else is, as it may run code.
MODEL_FILE, WEIGHT_FILES = ".keras", (".weights.h5", ".h5")
# How their files begin.
_ZIP, _HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"
# How Kubeflow Pipelines writes the address of its own S3 store.
_OWN_STORE = "minio://"


@dataclass(frozen=True)
class FoundWeights:
    """A file of weights.

    Attributes:
        name: The file's.
        content: All of it.
        card: That of the Model artifact which it is from; None for a file alone.
    """

    name: str
    content: bytes
    card: ModelCard | None

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def outputs(self) -> int | None:
        """For how many classes it is, where it is a whole model and that is plain to see."""
        if self.card:
            return len(self.card.class_names)
        try:
            with zipfile.ZipFile(io.BytesIO(self.content)) as parts:
                return int(json.loads(parts.read("config.json"))["config"]["layers"][-1]["config"]["units"])
        except (zipfile.BadZipFile, KeyError, IndexError, ValueError, TypeError):
            return None


def check_source(source: str, only_models: bool = False) -> str:
    """Checks what can be checked of a source without looking at it.

    Raises:
        ValueError: Saying what is expected.
    """
    bucket_scheme(_address(source))
    if not source.strip():
        raise ValueError(f"is empty; give {NONE}, {IMAGENET}, a path or a URI")
    if only_models and source.endswith(WEIGHT_FILES):
        raise ValueError("has no head; give the folder of a Model artifact or a .keras file, or this as weights")
    return source


def find_weights(parameter: str, source: str) -> FoundWeights:
    """Reads a file of weights, and the card that belongs to it.

    Args:
        parameter: As what the source was given, for messages.
        source: A path or URI, that `check_source` accepts.

    Raises:
        InvalidInput: When there is none.
    """
    shown = f"{parameter} = {source!r}"
    path = _address(source)
    is_file = path.endswith((MODEL_FILE, *WEIGHT_FILES))
    place, name = os.path.split(path) if is_file else (path, KERAS_MODEL)
    try:
        folder = open_folder(place or ".", parameter)
        found = FoundWeights(name, folder.read(name), None if is_file else _card(shown, folder))
    except FolderFailed as error:
        raise InvalidInput(
            f"{shown}: {error}; give the folder of an earlier run's Model artifact, with its {KERAS_MODEL}, or a file "
            f"that ends in {MODEL_FILE}, {' or '.join(WEIGHT_FILES)}"
        ) from None
    if not found.content.startswith(_HDF5 if name.endswith(WEIGHT_FILES) else _ZIP):
        raise InvalidInput(f"{shown}: {name} is damaged, or no file of Keras; write it with model.save or save_weights")
    return found


def _address(source: str) -> str:
    return source.replace(_OWN_STORE, "s3://", 1)


def _card(shown: str, folder: Folder) -> ModelCard:
    cards = [path for path in (PurePosixPath(file.name) for file in folder.files()) if path.match(f"*/{MODEL_CARD}")]
    numbered = [path for path in cards if path.parts[0].isdigit()]
    if not numbered:
        raise InvalidInput(f"{shown}: is no Model artifact: there is no {MODEL_CARD} in a numbered folder")
    newest = max(numbered, key=lambda path: int(path.parts[0]))
    try:
        return ModelCard.model_validate_json(folder.read(str(newest)))
    except ValueError as error:
        raise InvalidInput(f"{shown}: {newest} cannot be read: {str(error).splitlines()[0]}") from None
