"""What ingest saw of a data set's images: shown on the data page and kept in the manifest, to measure drift by."""

from pydantic import BaseModel, ConfigDict

from kfp_image_classification.components.contracts.split_names import SplitName

# Into so many equal ranges of 0 to 256 images are counted by their brightness and contrast.
BINS = 32


class PixelReport(BaseModel):
    """The pixels of a split's images as a model gets them, fitted to the data set's size, before they are scaled.

    Of a large split a sample, evenly spread.

    Attributes:
        images: How many were measured.
        mean: Of each channel, from 0 to 255.
        spread: Standard deviation of each channel's pixels over all images.
        brightness: How many images have their mean, over all channels, in each of `BINS` equal ranges of 0 to 256.
        contrast: The same by the standard deviation within an image.
    """

    model_config = ConfigDict(frozen=True)

    images: int
    mean: list[float]
    spread: list[float]
    brightness: list[int]
    contrast: list[int]


class SizeCount(BaseModel):
    """So many images of one size, as they are in the source."""

    model_config = ConfigDict(frozen=True)

    width: int
    height: int
    images: int


class SplitReport(BaseModel):
    """What was seen of one split.

    Attributes:
        encodings: Images by what they are in the source: PNG, JPEG, or pixels.
        turned: Images with a note, in EXIF, that they are to be turned for looking at them, which nobody does here.
        sizes: The most frequent sizes.
        other_sizes: Images of other sizes than these.
        smallest: Width and height of the image with the fewest pixels.
        largest: The same of that with the most.
        copies: Images of which the same file was in the split already.
        pixels: Of the pixels.
    """

    model_config = ConfigDict(frozen=True)

    encodings: dict[str, int]
    turned: int
    sizes: list[SizeCount]
    other_sizes: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    copies: int
    pixels: PixelReport


class Shared(BaseModel):
    """Images that are in two splits: what was trained on, or selected by, is no test.

    Attributes:
        first: The one split.
        second: The other.
        images: How many of the second are in the first.
    """

    model_config = ConfigDict(frozen=True)

    first: SplitName
    second: SplitName
    images: int


class Copy(BaseModel):
    """One image that is there twice.

    Attributes:
        first: Its name.
        first_split: Where it is.
        first_class: As what.
        second: The other's name.
        second_split: Where that is.
        second_class: As what.
    """

    model_config = ConfigDict(frozen=True)

    first: str
    first_split: SplitName
    first_class: str
    second: str
    second_split: SplitName
    second_class: str


class DataReport(BaseModel):
    """What was seen of a data set.

    Attributes:
        splits: Of each split.
        skipped: What the source has and ingest did not use, in words, with how many there are of it.
        shared: Images that are in two splits, where there are any.
        contradictions: Images whose copy has another class.
        copies: Some of the images that are there twice; first those in two splits, then those of two classes.
    """

    model_config = ConfigDict(frozen=True)

    splits: dict[SplitName, SplitReport]
    skipped: dict[str, int]
    shared: list[Shared]
    contradictions: int
    copies: list[Copy]
