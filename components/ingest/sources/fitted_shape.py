"""To which size the images of a source are fitted."""

from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sources.source import ImageShape
from kfp_image_classification.components.step.errors import InvalidInput

# For data sets whose images vary in size, when the user names no size.
DEFAULT_IMAGE_SIZE = 64


def fitted_shape(shape: tuple[int | None, int | None, int | None], options: IngestOptions) -> ImageShape:
    """The shape of every image in the data set: (height, width, channels).

    Args:
        shape: Of the source's images, None where it varies.
        options: With the size that the user wants, if any.

    Raises:
        InvalidInput: When the images have other channels than grey or colour.
    """
    height, width, channels = shape
    if channels not in (1, 3):
        raise InvalidInput(
            f"dataset = {options.dataset!r}: its images have {channels} channels; grey (1) and colour (3) are supported"
        )
    if options.image_size:
        return options.image_size, options.image_size, channels
    return height or DEFAULT_IMAGE_SIZE, width or DEFAULT_IMAGE_SIZE, channels
