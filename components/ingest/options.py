"""What ingest takes, and what it accepts."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

IMAGE_FOLDER_PREFIX = "image_folder:"
BUILT_IN_DIGITS = "mnist_5k"


def _image_size(size: int) -> int:
    if size != 0 and not 8 <= size <= 1024:
        raise ValueError("must be 0 (the data set's own size) or from 8 to 1024 pixels")
    return size


class IngestOptions(BaseModel):
    """Parameters of ingest.

    Attributes:
        dataset: `mnist_5k`, `image_folder:PATH`, or the name of a TensorFlow Datasets builder.
        data_dir: Folder of prepared TensorFlow Datasets; empty for the user's own (~/tensorflow_datasets).
        validation_share: Share of the training images that becomes the validation split.
        image_size: Height and width in pixels to which images are resized; 0 keeps the data set's own.
        workers: The number of shards of each split is a multiple of this.
        seed: Decides which images validate, and the order of the records.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str = Field(min_length=1)
    data_dir: str = ""
    validation_share: float = Field(gt=0, le=0.5)
    image_size: Annotated[int, AfterValidator(_image_size)] = 0
    workers: int = Field(ge=1, le=1024)
    seed: int = Field(ge=0, lt=2**31)
