"""From what the user wrote to a source."""

from kfp_image_classification.components.ingest.options import (
    BUILT_IN_DIGITS,
    IMAGE_FOLDER_PREFIX,
    IMAGE_LIST_PREFIX,
    IngestOptions,
)
from kfp_image_classification.components.ingest.sources.digits import built_in_digits
from kfp_image_classification.components.ingest.sources.folder import image_folder_source
from kfp_image_classification.components.ingest.sources.image_list import image_list_source
from kfp_image_classification.components.ingest.sources.source import Source
from kfp_image_classification.components.ingest.sources.storage import UnreadableStorage
from kfp_image_classification.components.step.errors import InvalidInput


def open_source(options: IngestOptions, dry: bool = False) -> Source:
    """Finds and checks the data set, and downloads it when it is not prepared yet. No image is opened.

    Args:
        options: Which data set, and where.
        dry: Only look: download nothing. A data set that is not prepared may have no splits then.

    Raises:
        InvalidInput: When there is no such data set, it is not one of labelled images, or it cannot be had.
    """
    if options.dataset == BUILT_IN_DIGITS:
        return built_in_digits(options)
    try:
        if options.dataset.startswith(IMAGE_FOLDER_PREFIX):
            return image_folder_source(options)
        if options.dataset.startswith(IMAGE_LIST_PREFIX):
            return image_list_source(options)
    except UnreadableStorage as error:
        raise InvalidInput(f"dataset = {options.dataset!r}: {error}") from None
    # It imports TensorFlow, which folders and lists do without.
    from kfp_image_classification.components.ingest.sources.tfds import tensorflow_dataset

    return tensorflow_dataset(options, dry)
