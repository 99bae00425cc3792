"""What decides the content of a data set, as a short text: equal for equal parameters, source, and code."""

import hashlib
import os
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from kfp_image_classification.components import contracts
from kfp_image_classification.components.ingest.options import IMAGE_FOLDER_PREFIX, IMAGE_LIST_PREFIX, IngestOptions
from kfp_image_classification.components.ingest.sources.folder import image_folder_state
from kfp_image_classification.components.ingest.sources.image_list import image_list_state


def recipe(options: IngestOptions) -> str:
    """Identifies what a data set is made from, without reading an image.

    Of a folder or list of images that is each file's name, size and time of change, or what a bucket knows of it; of
    a data set that TensorFlow Datasets has
    prepared in `data_dir`, what it wrote about it. Elsewhere a name and the package's version stand for one content.
    """
    # In how many parts it is made leaves no trace.
    digest = hashlib.sha256(options.model_dump_json(exclude={"ingest_parts"}).encode())
    for package in ("tensorflow", "tensorflow-datasets"):
        digest.update(version(package).encode())
    for folder in (Path(__file__).parent, Path(contracts.__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    for line in source_state(options.dataset, options.data_dir):
        digest.update(line)
    return digest.hexdigest()[:16]


def source_state(dataset: str, data_dir: str) -> Iterator[bytes]:
    """What can be seen of a source's files from outside."""
    if dataset.startswith(IMAGE_FOLDER_PREFIX):
        yield image_folder_state(dataset).encode()
    elif dataset.startswith(IMAGE_LIST_PREFIX):
        for line in image_list_state(dataset):
            yield line.encode()
    elif data_dir:
        name = re.split("[/:]", dataset)[0]
        for path in sorted(Path(data_dir, name).expanduser().rglob("dataset_info.json")):
            yield os.fsencode(path) + b"\n" + path.read_bytes() + b"\n"
