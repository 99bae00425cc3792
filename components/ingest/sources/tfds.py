"""TensorFlow Datasets: any data set of its catalogue, or of one's own, that has images and classes."""

import os
from collections.abc import Iterator
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from kfp_image_classification.components.contracts.dataset_manifest import SPLITS, SplitName
from kfp_image_classification.components.ingest.options import (
    BUILT_IN_DIGITS,
    IMAGE_FOLDER_PREFIX,
    IMAGE_LIST_PREFIX,
    IngestOptions,
)
from kfp_image_classification.components.ingest.sources.fitted_shape import fitted_shape
from kfp_image_classification.components.ingest.sources.source import Content, Examples, Source
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.step.untuned_reading import untuned

# Examples read in one step, at most.
READ_TOGETHER = 32


def tensorflow_dataset(options: IngestOptions, dry: bool) -> Source:
    """Finds and checks a data set of TensorFlow Datasets, and downloads it unless `dry`."""
    try:
        builder = tfds.builder(options.dataset, data_dir=options.data_dir or None)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInput(
            f"dataset = {options.dataset!r}: {reason} Use {BUILT_IN_DIGITS}, {IMAGE_FOLDER_PREFIX}PATH, "
            f"{IMAGE_LIST_PREFIX}PATH, or a name from the TensorFlow Datasets catalogue"
        ) from None
    image_key, label_key = _supervised_keys(builder.info, options)
    if not builder.is_prepared():
        _check_writable(Path(builder.data_path).parent, options)
        if not dry:
            _download(builder, options)
    return _source(builder, image_key, label_key, options)


def _supervised_keys(info: tfds.core.DatasetInfo, options: IngestOptions) -> tuple[str, str]:
    features: Any = info.features
    flat = dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}
    images = [key for key, feature in flat.items() if type(feature) is tfds.features.Image]
    labels = [key for key, feature in flat.items() if isinstance(feature, tfds.features.ClassLabel)]
    if not images or not labels:
        found = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in flat.items()) or str(features)
        raise InvalidInput(
            f"dataset = {options.dataset!r}: not an image classification data set: it needs an Image and a "
            f"ClassLabel feature, and has {found}"
        )
    keys = info.supervised_keys
    if keys and keys[0] in images and keys[1] in labels:
        return keys[0], keys[1]
    return images[0], labels[0]


def _check_writable(folder: Path, options: IngestOptions) -> None:
    try:
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    except OSError as error:  # a name in it is too long, say
        raise InvalidInput(
            f"data_dir = {options.data_dir!r}: cannot be read ({error.strerror}); choose another data_dir"
        ) from None
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InvalidInput(
            f"data_dir = {options.data_dir!r}: {options.dataset} has to be prepared there, and {existing} cannot be "
            "written; choose another data_dir"
        )


def _download(builder: tfds.core.DatasetBuilder, options: IngestOptions) -> None:
    try:
        builder.download_and_prepare()
    except Exception as error:  # downloads fail in as many ways as there are hosts
        reason = str(error).strip().splitlines()
        raise InvalidInput(
            f"dataset = {options.dataset!r}: it is not prepared in data_dir = {options.data_dir!r} and could not be "
            f"downloaded: {type(error).__name__}: {reason[0] if reason else ''}; give the folder that holds it as "
            "data_dir, or check the network"
        ) from None


def _source(builder: tfds.core.DatasetBuilder, image_key: str, label_key: str, options: IngestOptions) -> Source:
    info = builder.info
    if info.splits and "train" not in info.splits:
        raise InvalidInput(
            f"dataset = {options.dataset!r}: has no `train` split; its splits are {', '.join(sorted(info.splits))}"
        )
    splits: dict[SplitName, Examples] = {
        name: TensorFlowExamples(options.dataset, options.data_dir, name, image_key, label_key)
        for name in SPLITS
        if name in info.splits
    }
    return Source(
        name=options.dataset,
        version=str(info.version),
        class_names=list(info.features[label_key].names),
        image_shape=fitted_shape(info.features[image_key].shape, options),
        splits=splits,
        skipped={
            f"images of the split {name!r}, which has no part here": split.num_examples
            for name, split in info.splits.items()
            if name not in SPLITS
        },
    )


class TensorFlowExamples:
    """A split of a prepared data set; what is stored as PNG or JPEG is handed on as it is, not decoded."""

    def __init__(self, dataset: str, data_dir: str, split: SplitName, image_key: str, label_key: str) -> None:
        self._dataset, self._data_dir = dataset, data_dir
        self._split, self._image_key, self._label_key = split, image_key, label_key

    def __getstate__(self) -> dict[str, Any]:
        """Without the builder, which another process opens for itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_builder"}

    @cached_property
    def _builder(self) -> tfds.core.DatasetBuilder:
        return tfds.builder(self._dataset, data_dir=self._data_dir or None)

    def __len__(self) -> int:
        return int(self._builder.info.splits[self._split].num_examples)

    def labels(self) -> np.ndarray:
        return self._labels

    @cached_property
    def _labels(self) -> np.ndarray:
        batches = list(self._batches(0, len(self), self._label_key, "int64"))
        return np.concatenate([np.empty(0, np.int64), *batches]).astype(np.int32)

    def read(self, start: int, stop: int) -> Iterator[Content]:
        for batch in self._batches(start, min(stop, len(self)), self._image_key, "string"):
            yield from batch

    def pick(self, indices: np.ndarray) -> Iterator[Content]:
        if len(indices):
            wanted = np.zeros(indices[-1] + 1 - indices[0], bool)
            wanted[indices - indices[0]] = True
            yield from compress(self.read(int(indices[0]), int(indices[-1]) + 1), wanted)

    def name(self, index: int) -> str:
        return f"{self._split} example {index}"

    def _batches(self, start: int, stop: int, key: str, dtype: str) -> Iterator[np.ndarray]:
        """One feature of a range of examples, as it is stored."""
        import tensorflow as tf  # who only looks at a data set needs none, which takes seconds to load

        feature = tf.io.FixedLenFeature([], tf.as_dtype(dtype))
        if start >= stop:
            return
        if self._builder.info.file_format != tfds.core.FileFormat.TFRECORD:
            yield from self._batches_of_any_format(start, stop, key)
            return
        # Many at a time: TensorFlow Datasets reads one by one, at the cost of ten small images each.
        for file in self._builder.info.splits[f"{self._split}[{start}:{stop}]"].file_instructions:
            stored = tf.data.TFRecordDataset(file.filename).skip(file.skip).take(file.take)
            parsed = stored.batch(READ_TOGETHER).map(lambda some: tf.io.parse_example(some, {key: feature})[key])
            for batch in parsed.prefetch(1).with_options(untuned()):
                yield batch.numpy()

    def _batches_of_any_format(self, start: int, stop: int, key: str) -> Iterator[np.ndarray]:
        decoders = {key: tfds.decode.SkipDecoding()} if key == self._image_key else None
        # One file after the other: only so are ranges parts of the whole, in the same order.
        in_order = tfds.ReadConfig(options=untuned(), interleave_cycle_length=1, try_autocache=False, add_tfds_id=False)
        found = self._builder.as_dataset(
            split=tfds.core.ReadInstruction(self._split, from_=start, to=stop, unit="abs"),
            shuffle_files=False,
            read_config=in_order,
            decoders=tfds.decode.PartialDecoding({key: True}, decoders=decoders),
        )
        for batch in found.batch(READ_TOGETHER):
            yield batch[key].numpy()
