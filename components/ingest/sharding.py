"""From a source to a data set: its shards, and the manifest that lists them."""

import logging
import shutil
from pathlib import Path

import numpy as np

from kfp_image_classification.components.contracts.dataset_manifest import (
    MANIFEST_FILE,
    SPLITS,
    Dataset,
    DatasetManifest,
    Split,
)
from kfp_image_classification.components.ingest.observed import PixelSums, data_report
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.parts import take_parts
from kfp_image_classification.components.ingest.shard_plan import PlannedShard, ShardPlan, plan_shards
from kfp_image_classification.components.ingest.shard_writing import WrittenShard, write_shards
from kfp_image_classification.components.ingest.sources.source import Source
from kfp_image_classification.components.step.whole_file import publish_folder, write_whole


def write_dataset(
    source: Source, options: IngestOptions, directory: Path, log: logging.Logger, parts: Path | None = None
) -> DatasetManifest:
    """Writes shards and manifest; the folder appears under its name only when it is whole.

    Args:
        source: What to read.
        options: Shares, seed and workers.
        directory: The folder to create; whatever stands there is replaced.
        log: Told about progress.
        parts: The folder of the data set's parts, where they were written before; it is removed in the end.

    Raises:
        InvalidInput: When the source has too few images for three splits and this many workers.
        UnusableImages: Naming all images that do not decode.
    """
    plan = plan_shards(source, options)
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if parts:
        written = take_parts(plan, options.ingest_parts, parts, partial, log)
    else:
        written = write_shards(plan, plan.part(0, 1), partial, log)
    manifest = manifest_of(plan, written, options)
    (partial / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    publish_folder(partial, directory, last=MANIFEST_FILE)
    if parts:
        shutil.rmtree(parts, ignore_errors=True)
    return manifest


def manifest_of(plan: ShardPlan, written: list[WrittenShard], options: IngestOptions) -> DatasetManifest:
    """The manifest of a plan whose shards are all written."""
    by_file = {one.shard.file: one.shard for one in written}
    source = plan.source
    notes = {name: np.concatenate([one.notes for one in written if one.split == name]) for name in SPLITS}
    sums = {name: PixelSums(source.image_shape[2]) for name in SPLITS}
    for one in written:
        sums[one.split].add(one.sums)
    return DatasetManifest(
        format=plan.layout,
        name=source.name,
        version=source.version,
        seed=options.seed,
        image_shape=source.image_shape,
        class_names=source.class_names,
        splits={
            name: Split(
                shards=[by_file[planned.file] for planned in plan.shards[name]],
                class_counts=_class_counts(plan.shards[name], len(source.class_names)),
            )
            for name in SPLITS
        },
        report=data_report(source, plan.splits, notes, sums),
    )


def _class_counts(shards: list[PlannedShard], classes: int) -> list[int]:
    labels = np.concatenate([shard.labels for shard in shards])
    counts: list[int] = np.bincount(labels, minlength=classes).tolist()
    return counts


def write_manifest_alone(dataset: Dataset, name: str, directory: Path) -> DatasetManifest:
    """Writes into `directory` the manifest of a data set whose shards stay where they are; returns it.

    Args:
        dataset: The data set.
        name: As its user calls it; another may have made the same one by another name.
        directory: Created when it is not there.
    """
    manifest = dataset.manifest.model_copy(update={"root": str(dataset.directory.absolute()), "name": name})
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / MANIFEST_FILE, manifest.model_dump_json(indent=2))
    return manifest
