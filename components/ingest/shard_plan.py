"""Which example lies in which shard: decided before anything is written, by the source and the options alone.

So shards can be written in any order, by any number of threads, and in any number of parts: they are the same files.
"""

import math
from dataclasses import dataclass

import numpy as np

from kfp_image_classification.components.contracts.dataset_manifest import (
    ENCODED,
    RAW,
    SPLITS,
    RecordLayout,
    SplitName,
)
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sources.source import Examples, ImageShape, Missing, Source
from kfp_image_classification.components.ingest.split_plan import SplitPlan, plan_splits

# Several shards a worker, so that shuffling their order in each epoch mixes the data; more when they would grow large:
# whoever reads a shard holds the whole of it, and of raw ones, which are inflated, one a core.
MIN_SHARDS_PER_WORKER = 4
MAX_SHARD_BYTES: dict[RecordLayout, int] = {RAW: 4 * 2**20, ENCODED: 16 * 2**20}
# Images up to this size are kept as pixels: larger ones, such as photographs, take several times their files' bytes.
LARGEST_RAW = 64 * 64 * 3
# So many examples tell how large an image file is.
WEIGHED = 32


@dataclass(frozen=True)
class PlannedShard:
    """A shard that is to be written.

    Attributes:
        file: Its name.
        split: Whose it is.
        examples: The source's examples, some of which go into it.
        indices: Which, int64 [n], ascending.
        before: How many examples of the split lie in the shards before this one.
        split_examples: How many the split has.
    """

    file: str
    split: SplitName
    examples: Examples
    indices: np.ndarray
    before: int
    split_examples: int

    @property
    def labels(self) -> np.ndarray:
        chosen: np.ndarray = self.examples.labels()[self.indices]
        return chosen


@dataclass(frozen=True)
class ShardPlan:
    """How a source becomes shards.

    Attributes:
        source: What is read.
        splits: Which example goes to which split.
        layout: How images are kept.
        shards: Of each split, in the manifest's order.
    """

    source: Source
    splits: SplitPlan
    layout: RecordLayout
    shards: dict[SplitName, list[PlannedShard]]

    def part(self, part: int, parts: int) -> list[PlannedShard]:
        """The shards of one of several parts: neighbours, so that a part reads its own stretch of the source."""
        return [
            shard
            for shards in self.shards.values()
            for shard in shards[len(shards) * part // parts : len(shards) * (part + 1) // parts]
        ]


def plan_shards(source: Source, options: IngestOptions) -> ShardPlan:
    """Plans splits and shards.

    Raises:
        InvalidInput: When the source has too few images for three splits and this many workers.
    """
    splits = plan_splits(source, options)
    layout = record_layout(options, source.image_shape)
    image_bytes = _image_bytes(source, layout)
    shards = {name: _planned(splits, name, layout, image_bytes, options) for name in SPLITS}
    return ShardPlan(splits.source, splits, layout, shards)


def record_layout(options: IngestOptions, image_shape: ImageShape) -> RecordLayout:
    """How images of this size are kept."""
    if options.record_format == "auto":
        return RAW if math.prod(image_shape) <= LARGEST_RAW else ENCODED
    return RAW if options.record_format == "raw" else ENCODED


def shard_count(examples: int, image_bytes: int, workers: int, layout: RecordLayout) -> int:
    """A multiple of the workers: several shards for each, none of them empty and none much too large.

    Args:
        examples: How many lie in them.
        image_bytes: Of one, as it is read.
        workers: How many share them.
        layout: How images are kept.
    """
    wanted = max(MIN_SHARDS_PER_WORKER, math.ceil(examples * image_bytes / workers / MAX_SHARD_BYTES[layout]))
    return workers * min(wanted, examples // workers)


def _image_bytes(source: Source, layout: RecordLayout) -> int:
    if layout == RAW:
        return math.prod(source.image_shape)
    train = source.splits["train"]
    found = [content for content in train.read(0, WEIGHED) if not isinstance(content, Missing)]
    sizes = [len(content) if isinstance(content, bytes) else content.nbytes for content in found]
    return max(1, sum(sizes) // max(1, len(sizes)))


def _planned(
    splits: SplitPlan, name: SplitName, layout: RecordLayout, image_bytes: int, options: IngestOptions
) -> list[PlannedShard]:
    ((examples, indices),) = splits.parts(name)
    count = shard_count(len(indices), image_bytes, options.workers, layout)
    ending = "tfrecord.gz" if layout == RAW else "tfrecord"
    planned, before = [], 0
    for index, some in enumerate(np.array_split(indices, count)):
        file = f"{name}-{index:05d}-of-{count:05d}.{ending}"
        planned.append(PlannedShard(file, name, examples, some, before, len(indices)))
        before += len(some)
    return planned
