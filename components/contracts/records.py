"""The records of the shards: TFRecord files of tf.train.Example, an image and its label each, in two formats.

**Raw**: pixels that have the data set's size, in GZIP files. They decode with one reshape for a whole batch, several
times faster than PNG in each record, and GZIP makes up for the size. For small images.

**Encoded**: a PNG's or JPEG's own bytes, untouched, decoded and fitted wherever they are read. For photographs, which
are many times larger as pixels.

TFRecord and tf.train.Example are TensorFlow's own formats, so any TensorFlow program can read a shard. Here a shard is
read as a whole and compared with its checksum first: what goes on from here is what ingest has written.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import tensorflow as tf

from kfp_image_classification.components.contracts.dataset_manifest import RAW, Dataset, RecordLayout, Shard
from kfp_image_classification.components.contracts.preprocessing import ImageShape, decode_images
from kfp_image_classification.components.step.errors import StageFailed

_FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
}
# Level 6 takes three times the time of 3 for a tenth of the bytes.
_GZIP_LEVEL = 3
# A TFRecord's length and the length's checksum stand before it, its own checksum behind it.
_BEFORE, _BEHIND = 12, 4


def serialize(image: bytes, label: int) -> bytes:
    """Makes a record.

    Args:
        image: A raw record's pixels, uint8 [height, width, channels] in C order; or an image file's content.
        label: Index of the image's class.
    """
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    # Otherwise the order of the features, and so every checksum, would change from process to process.
    return example.SerializeToString(deterministic=True)


def writer(path: Path, layout: RecordLayout) -> tf.io.TFRecordWriter:
    # PNG and JPEG are compressed already.
    gzip = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=_GZIP_LEVEL)
    return tf.io.TFRecordWriter(str(path), gzip if layout == RAW else None)


def read_shard(dataset: Dataset, shard: Shard) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads one shard, and checks it before anything of it is used.

    Returns:
        The images, string [n]: pixels or image files, by the data set's layout; and the labels, int64 [n].

    Raises:
        StageFailed: When the shard is not the one that ingest has written.
    """
    content = dataset.read(shard)
    if dataset.manifest.format == RAW:
        content = zlib.decompress(content, wbits=31)
    parsed = tf.io.parse_example(list(_records(content)), _FEATURES)
    if len(parsed["label"]) != shard.examples:
        raise StageFailed(
            f"shard {dataset.path(shard)}: {len(parsed['label'])} records, the manifest says {shard.examples}"
        )
    return parsed["image"], parsed["label"]


def _records(content: bytes) -> Iterator[bytes]:
    # Their own checksums tell nothing that the shard's has not told.
    position = 0
    while position < len(content):
        length = int.from_bytes(content[position : position + 8], "little")
        yield content[position + _BEFORE : position + _BEFORE + length]
        position += _BEFORE + length + _BEHIND


def pixels_of_raw(images: tf.Tensor, image_shape: ImageShape) -> tf.Tensor:
    """Raw records' images, string [n], as uint8 [n, *image_shape]."""
    pixels = tf.io.decode_raw(images, tf.uint8, fixed_length=int(np.prod(image_shape)))
    return tf.reshape(pixels, (-1, *image_shape))


def read_files(dataset: Dataset, shards: Sequence[Shard], batch_size: int) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """Reads shards once, in order: batches of (images as string [n], labels as int64 [n]), the last one smaller.

    Raises:
        StageFailed: When a shard is not the one that ingest has written.
    """
    left: tuple[tf.Tensor, tf.Tensor] | None = None
    for shard in shards:
        images, labels = read_shard(dataset, shard)
        if left is not None:
            images, labels = tf.concat([left[0], images], 0), tf.concat([left[1], labels], 0)
        whole = len(labels) // batch_size * batch_size
        for start in range(0, whole, batch_size):
            yield images[start : start + batch_size], labels[start : start + batch_size]
        left = images[whole:], labels[whole:]
    if left is not None and len(left[1]):
        yield left


def read_batches(dataset: Dataset, shards: Sequence[Shard], batch_size: int) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """Reads shards once, in order: batches of (uint8 pixels, int64 labels), the last one possibly smaller.

    Raises:
        StageFailed: When a shard is not the one that ingest has written.
    """
    files = read_files(dataset, shards, batch_size)

    def decoded() -> tuple[tf.Tensor, tf.Tensor] | None:
        batch = next(files, None)
        return batch and (pixels(batch[0], dataset), batch[1])

    with ThreadPoolExecutor(1, "read-batches") as reader:  # the next one is made while this one is used
        coming = reader.submit(decoded)
        while batch := coming.result():
            coming = reader.submit(decoded)
            yield batch


def pixels(images: tf.Tensor, dataset: Dataset) -> tf.Tensor:
    """The images of a data set's records, string [n], as uint8 [n, height, width, channels]."""
    return _decoder(dataset.manifest.format, dataset.manifest.image_shape)(images)


@cache
def _decoder(layout: RecordLayout, image_shape: ImageShape) -> Callable[[tf.Tensor], tf.Tensor]:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def decode(images: tf.Tensor) -> tf.Tensor:
        return (pixels_of_raw if layout == RAW else decode_images)(images, image_shape)

    return decode
