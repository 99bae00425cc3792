"""What ingest takes, and what it accepts."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

IMAGE_FOLDER_PREFIX = "image_folder:"
IMAGE_LIST_PREFIX = "image_list:"
BUILT_IN_DIGITS = "mnist_5k"


def _image_size(size: int) -> int:
    if size != 0 and not 8 <= size <= 1024:
        raise ValueError("must be 0 (the data set's own size) or from 8 to 1024 pixels")
    return size


def image_folder(dataset: str) -> str:
    """The folder that `image_folder:PATH` names, or the URL of one; `~` in front of a path is the user's home."""
    return _expanded(dataset.removeprefix(IMAGE_FOLDER_PREFIX))


def image_list(dataset: str) -> str:
    """The file that `image_list:PATH` names, or the URL of one; `~` in front of a path is the user's home."""
    return _expanded(dataset.removeprefix(IMAGE_LIST_PREFIX))


def _named(dataset: str) -> str:
    for prefix in (IMAGE_FOLDER_PREFIX, IMAGE_LIST_PREFIX):
        if dataset.startswith(prefix) and not dataset.removeprefix(prefix).removeprefix("file://").strip():
            raise ValueError(f"give a path or a URL after {prefix}")
    return dataset


def _expanded(path: str) -> str:
    path = path.removeprefix("file://")
    if "://" in path:
        return path
    with suppress(RuntimeError):  # no such user: the folder's own name begins so
        return str(Path(path).expanduser())
    return str(Path(path))


class IngestOptions(BaseModel):
    """Parameters of ingest.

    Attributes:
        dataset: `mnist_5k` (5,000 MNIST digits, no download), the name of any TensorFlow Datasets image
            classification data set, `image_folder:PATH` for PATH/CLASS/IMAGE or PATH/SPLIT/CLASS/IMAGE, or
            `image_list:PATH` for a CSV or JSON lines file with image, label and optional split; PATH may be an s3:// or
            gs:// URL.
        data_dir: Folder with prepared TensorFlow Datasets; empty for ~/tensorflow_datasets.
        validation_share: Share of the training images held out to select the best model, above 0 and up to 0.5.
        image_size: Height and width in pixels to which images are resized; 0 keeps the data set's own size.
        workers: Training workers to prepare for: the number of shards is a multiple of it.
        seed: Decides which images validate.
        record_format: How the data set keeps images: `raw`, as pixels of their final size; `encoded`, as the source's
            own PNG and JPEG files, decoded and resized whenever they are read; `auto`, raw up to 64 x 64 pixels in
            colour, encoded above.
        ingest_parts: Parts in which the data set is written at the same time, each by a task of its own; the data set
            is the same whatever their number.
    """

    model_config = ConfigDict(frozen=True)

    dataset: Annotated[str, Field(min_length=1), AfterValidator(_named)]
    data_dir: str = ""
    validation_share: float = Field(gt=0, le=0.5)
    image_size: Annotated[int, AfterValidator(_image_size)] = 0
    workers: int = Field(ge=1, le=1024)
    seed: int = Field(ge=0, lt=2**31)
    record_format: Literal["auto", "raw", "encoded"] = "auto"
    ingest_parts: int = Field(default=1, ge=1, le=1000)
