from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import ENCODED, RAW, RecordLayout, file_sha256


def test_a_record_is_the_same_in_every_process() -> None:
    """The features of an example are a map, whose order protobuf leaves to chance unless it is told otherwise."""
    image = b"\x0a\x0e" + b"\x0a\x05image" + b"\x12\x05\x0a\x03\x0a\x01\x07"
    label = b"\x0a\x0e" + b"\x0a\x05label" + b"\x12\x05\x1a\x03\x0a\x01\x03"
    assert records.serialize(b"\x07", 3) == b"\x0a\x20" + image + label


NOISE = np.random.default_rng(0).integers(0, 256, (200, 600), np.uint8)


@pytest.mark.parametrize(
    ("layout", "compression", "images"),
    [
        pytest.param(RAW, "GZIP", [bytes([index] * 12) for index in range(200)], id="plain pixels"),
        pytest.param(RAW, "GZIP", [image.tobytes() for image in NOISE], id="pixels that GZIP only stores"),
        pytest.param(ENCODED, "", [bytes([index] * index) for index in range(200)], id="files"),
    ],
)
def test_any_tensorflow_program_reads_a_shard(
    layout: RecordLayout, compression: str, images: list[bytes], tmp_path: Path
) -> None:
    """Its reader compares the checksums of every record."""
    labels = [index * index for index in range(200)]
    with records.ShardWriter(tmp_path / "shard", layout) as writer:
        writer.write([], [])
        writer.write(images[:150], labels[:150])
        writer.write(images[150:], labels[150:])
        shard = writer.finish()
    read = [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / "shard"), compression)]
    assert read == [records.serialize(image, label) for image, label in zip(images, labels, strict=True)]
    assert (shard.file, shard.examples) == ("shard", 200)
    assert shard.bytes == (tmp_path / "shard").stat().st_size
    assert shard.sha256 == file_sha256(tmp_path / "shard")


def test_pixels_are_compressed_where_that_saves_a_fifth(tmp_path: Path) -> None:
    def written(images: np.ndarray) -> int:
        with records.ShardWriter(tmp_path / "shard", RAW) as writer:
            writer.write([image.tobytes() for image in images], [0] * len(images))
            return writer.finish().bytes

    framing = 60 * len(NOISE)
    assert NOISE.size <= written(NOISE) < NOISE.size + framing
    assert written(NOISE // 128) < NOISE.size / 4, "a bit of each byte"
    assert written(NOISE // 2) >= NOISE.size, "an eighth would be saved"


def test_raw_records_are_unpacked_whatever_their_labels(tmp_path: Path) -> None:
    """A label takes one byte more from 128 on, from 16,384, and so on."""
    labels = [0, 1, 127, 128, 129, 16_383, 16_384, 2**21, 2**28, 2**31 - 1, 5]
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 5, 7, 3), np.uint8)
    with records.ShardWriter(tmp_path / "shard", RAW) as writer:
        writer.write([image.tobytes() for image in images], labels)
        writer.finish()
    pixels, read = records.unpack((tmp_path / "shard").read_bytes(), RAW, (5, 7, 3))
    assert np.array_equal(pixels, images)
    assert read.tolist() == labels
