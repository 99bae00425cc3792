"""The records of the shards: TFRecord files of tf.train.Example, an image and its label each, in two formats.

**Raw**: pixels that have the data set's size, in GZIP files. They decode with one reshape for a whole batch, several
times faster than PNG in each record, and GZIP makes up for the size: where it cannot, as with most colour images, the
file only stores them, which any reader of GZIP takes. For small images.

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
# Stored as they are, pixels are read twenty times as fast, and written so: less than a fifth saved is not worth it.
_STORED, _WORTH_IT = 0, 0.8
# So much of a shard tells what GZIP would save.
_TRIED_BYTES = 2**16
# What a GZIP file begins and ends with, when it has no name.
_GZIP_HEAD, _GZIP_END = 10, 8
# A TFRecord's length and the length's checksum stand before it, its own checksum behind it.
_BEFORE, _BEHIND = 12, 4
# Of the memory in which a tensor lies.
_ALIGNMENT = 64
# Classes are counted in 32 bits.
_MOST_LABEL_BYTES = 5


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
        self._gzip: zlib._Compress | None = None
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
        if parts:
            self._put(b"".join(parts))

    def finish(self) -> Shard:
        """Writes what is left; returns the shard as a manifest lists it."""
        if self._gzip:
            self._write(self._gzip.flush())
        self._file.flush()
        return Shard(file=self._path.name, examples=self.examples, bytes=self._bytes, sha256=self._digest.hexdigest())

    def _put(self, content: bytes) -> None:
        if self._is_raw:  # PNG and JPEG are compressed already
            self._gzip = self._gzip or _gzip_for(content)
            content = self._gzip.compress(content)
        self._write(content)

    def _write(self, content: bytes) -> None:
        self._digest.update(content)
        self._bytes += len(content)
        self._file.write(content)


def _gzip_for(records: bytes) -> "zlib._Compress":
    """A GZIP file's writer, which only stores what begins with records that hardly become smaller."""
    tried = records[:_TRIED_BYTES]
    level = _GZIP_LEVEL if len(zlib.compress(tried, _GZIP_LEVEL)) < _WORTH_IT * len(tried) else _STORED
    return zlib.compressobj(level, wbits=31)


def _masked_crc(content: bytes) -> bytes:
    """As TFRecord has it: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details."""
    crc = google_crc32c.value(content)
    return ((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def read_shard(dataset: Dataset, shard: Shard) -> tuple[np.ndarray, np.ndarray]:
    """Reads one shard, and checks it before anything of it is used.

    Returns:
        The images: pixels, uint8 [n, height, width, channels], of a raw data set; files, bytes [n], of an encoded one.
        And the labels, int64 [n].

    Raises:
        StageFailed: When the shard is not the one that ingest has written.
    """
    images = empty_images(dataset, shard.examples)
    return images, read_shard_into(dataset, shard, images, np.arange(shard.examples))


def empty_images(dataset: Dataset, count: int) -> np.ndarray:
    """Room for images as `read_shard` has them."""
    if dataset.manifest.format == RAW:
        return _empty_pixels(count, dataset.manifest.image_shape)
    return np.empty(count, object)


def read_shard_into(dataset: Dataset, shard: Shard, images: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Reads one shard's images to where they are wanted, which spares those who want another order a copy.

    Args:
        dataset: Where the shard lies.
        shard: What to read.
        images: See `empty_images`; filled at `places`.
        places: int64 [n], of each record its index in `images`.

    Returns:
        The labels, int64 [n].

    Raises:
        StageFailed: When the shard is not the one that ingest has written; then nothing of it is in `images`.
    """
    content = dataset.read(shard)
    records = _Records(_inflated(content)) if dataset.manifest.format == RAW else _Records(content)
    if len(records.starts) != shard.examples:
        raise StageFailed(
            f"shard {dataset.path(shard)}: {len(records.starts)} records, the manifest says {shard.examples}"
        )
    if dataset.manifest.format == RAW:
        return _unpack_raw(records, images, places)
    images[places], labels = _parse(records)
    return labels


def unpack(content: bytes, layout: RecordLayout, image_shape: ImageShape) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels in a shard's file; see `read_shard`."""
    if layout != RAW:
        return _parse(_Records(content))
    records = _Records(_inflated(content))
    count = len(records.starts)
    pixels = _empty_pixels(count, image_shape)
    return pixels, _unpack_raw(records, pixels, np.arange(count))


def _inflated(content: bytes) -> bytes:
    """What a shard's GZIP file holds.

    It ends with a CRC-32, which tells nothing that the shard's checksum has not told, and the length of what it holds:
    room for it is taken once. See https://www.rfc-editor.org/rfc/rfc1952.
    """
    size = int.from_bytes(content[-4:], "little")
    return zlib.decompress(memoryview(content)[_GZIP_HEAD:-_GZIP_END], wbits=-15, bufsize=size)


def _empty_pixels(count: int, image_shape: ImageShape) -> np.ndarray:
    """Where TensorFlow wants an array to begin, to take it without a copy."""
    size = count * int(np.prod(image_shape))
    room = np.empty(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size].reshape(count, *image_shape)


def _parse(records: "_Records") -> tuple[np.ndarray, np.ndarray]:
    pairs = zip(records.starts, records.lengths, strict=True)
    parsed = tf.io.parse_example([records.content[start : start + length] for start, length in pairs], _FEATURES)
    return parsed["image"].numpy(), parsed["label"].numpy()


def _unpack_raw(records: "_Records", pixels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """As images have one size, records differ in length by their labels alone: all of a length are copied at once."""
    size = int(np.prod(pixels.shape[1:]))
    rows, labels = pixels.reshape(len(pixels), size), np.zeros(len(records.starts), np.int64)
    buffer = np.frombuffer(records.content, np.uint8)
    for label_bytes in range(1, _MOST_LABEL_BYTES + 1):
        before, behind = _around(size, (1 << 7 * label_bytes) - 1)
        chosen = np.flatnonzero(records.lengths == len(before) + size + len(behind))
        if len(chosen):
            rows[places[chosen]] = _rows_at(records.starts[chosen] + len(before), buffer, size)
            ends = records.starts[chosen] + records.lengths[chosen]
            for position in range(label_bytes):  # seven bits in each, the lowest first
                bits = (buffer[ends - label_bytes + position] & 0x7F).astype(np.int64)
                labels[chosen] |= bits << 7 * position
    return labels


def _rows_at(starts: np.ndarray, buffer: np.ndarray, size: int) -> np.ndarray:
    """The bytes [n, size] from each start on: no copy of them where these are evenly spaced."""
    step = int(starts[1] - starts[0]) if len(starts) > 1 else size
    if (np.diff(starts) == step).all():
        return np.ndarray((len(starts), size), np.uint8, buffer, int(starts[0]), (step, 1))
    return np.lib.stride_tricks.sliding_window_view(buffer, size)[starts]


class _Records:
    """Where the records of a shard lie. Their own checksums tell nothing that the shard's has not told.

    Attributes:
        content: All of them, framed.
        starts: Of each record, int64 [n].
        lengths: Of each record, int64 [n].
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.starts, self.lengths = _of_one_length(content) or _of_any_length(content)


def _of_one_length(content: bytes) -> tuple[np.ndarray, np.ndarray] | None:
    """Where records lie that all are as long as the first, as most raw shards have them."""
    length = int.from_bytes(content[:8], "little")
    framed = _BEFORE + length + _BEHIND
    count, left = divmod(len(content), framed)
    if left or not (np.ndarray(count, "<u8", content, strides=(framed,)) == length).all():
        return None
    return np.arange(count) * framed + _BEFORE, np.full(count, length)


def _of_any_length(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    starts, lengths, position = [], [], 0
    while position < len(content):
        lengths.append(int.from_bytes(content[position : position + 8], "little"))
        starts.append(position + _BEFORE)
        position += _BEFORE + lengths[-1] + _BEHIND
    return np.array(starts, np.int64), np.array(lengths, np.int64)


def read_files(dataset: Dataset, shards: Sequence[Shard], batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads shards once, in order: batches of images and labels as `read_shard` has them, the last one smaller.

    Raises:
        StageFailed: When a shard is not the one that ingest has written.
    """
    left: tuple[np.ndarray, np.ndarray] | None = None
    for shard in shards:
        images, labels = read_shard(dataset, shard)
        if left is not None:
            images, labels = np.concatenate([left[0], images]), np.concatenate([left[1], labels])
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
        return batch and (pixels(batch[0], dataset), tf.constant(batch[1]))

    with ThreadPoolExecutor(1, "read-batches") as reader:  # the next one is made while this one is used
        coming = reader.submit(decoded)
        while batch := coming.result():
            coming = reader.submit(decoded)
            yield batch


def pixels(images: np.ndarray, dataset: Dataset) -> tf.Tensor:
    """Images as `read_shard` has them, as uint8 [n, height, width, channels]; files are decoded on all cores."""
    if dataset.manifest.format == RAW:
        return tf.constant(images, tf.uint8)
    return _decoder(dataset.manifest.image_shape)(tf.constant(images, tf.string))


@cache
def _decoder(image_shape: ImageShape) -> Callable[[tf.Tensor], tf.Tensor]:
    decode: Callable[[tf.Tensor], tf.Tensor] = tf.function(
        lambda images: decode_images(images, image_shape), input_signature=[tf.TensorSpec([None], tf.string)]
    )
    return decode
