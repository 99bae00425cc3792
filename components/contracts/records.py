"""The records of the shards: TFRecord files of tf.train.Example, an image and its label each, in two formats.

**Raw**: pixels that have the data set's size, in GZIP files. They decode with one reshape for a whole batch, several
times faster than PNG in each record, and GZIP makes up for the size. For small images.

**Encoded**: a PNG's or JPEG's own bytes, untouched, decoded and fitted wherever they are read. For photographs, which
are many times larger as pixels.

TFRecord and tf.train.Example are TensorFlow's own formats, so any TensorFlow program can read a shard. Here a shard is
read as a whole and compared with its checksum first: what goes on from here is what ingest has written.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path

import google_crc32c
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


@lru_cache(maxsize=2**14)
def _around(size: int, label: int) -> tuple[bytes, bytes]:
    """What stands before and behind an image in a record: the same for all images of a size and a label."""
    zeros, ones = serialize(b"\0" * size, label), serialize(b"\1" * size, label)
    start = next((at for at, (zero, one) in enumerate(zip(zeros, ones, strict=True)) if zero != one), len(zeros))
    return zeros[:start], zeros[start + size :]


class ShardWriter:
    """Writes a shard, many records at a time: TensorFlow's own writer takes them one by one, each a call.

    Attributes:
        examples: Records so far.
    """

    def __init__(self, path: Path, layout: RecordLayout) -> None:
        self.examples = 0
        self._path, self._is_raw = path, layout == RAW
        # PNG and JPEG are compressed already.
        self._gzip = zlib.compressobj(_GZIP_LEVEL, wbits=31) if self._is_raw else None
        self._digest, self._bytes = hashlib.sha256(), 0

    def __enter__(self) -> "ShardWriter":
        self._file = self._path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, images: Sequence[bytes], labels: Sequence[int]) -> None:
        """Adds records."""
        parts: list[bytes] = []
        for image, label in zip(images, labels, strict=True):
            if self._is_raw:
                before, behind = _around(len(image), label)
                record = before + image + behind
            else:
                record = serialize(image, label)
            length = len(record).to_bytes(8, "little")
            parts += (length, _masked_crc(length), record, _masked_crc(record))
        self.examples += len(images)
        self._put(b"".join(parts))

    def finish(self) -> Shard:
        """Writes what is left; returns the shard as a manifest lists it."""
        if self._gzip:
            self._write(self._gzip.flush())
        self._file.flush()
        return Shard(file=self._path.name, examples=self.examples, bytes=self._bytes, sha256=self._digest.hexdigest())

    def _put(self, content: bytes) -> None:
        self._write(self._gzip.compress(content) if self._gzip else content)

    def _write(self, content: bytes) -> None:
        self._digest.update(content)
        self._bytes += len(content)
        self._file.write(content)


def _masked_crc(content: bytes) -> bytes:
    """As TFRecord has it: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details."""
    crc = google_crc32c.value(content)
    return ((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


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
