from kfp import dsl

from kfp_image_classification.components.cluster.images import TENSORFLOW_IMAGE
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.step.options import described_by


@dsl.component(base_image=TENSORFLOW_IMAGE, install_kfp_package=False)
@described_by(IngestOptions)
def ingest(
    shards: dsl.Output[dsl.Dataset],
    preview: dsl.Output[dsl.HTML],
    dataset: str = "mnist_5k",
    data_dir: str = "",
    validation_share: float = 0.1,
    image_size: int = 0,
    workers: int = 2,
    seed: int = 0,
    record_format: str = "auto",
    ingest_parts: int = 1,
    fingerprint: str = "",
):
    """Reads a labelled image data set and writes it as sharded TFRecord files with a manifest.

    Args:
        shards: The shards of the train, validation and test splits, and `manifest.json`, which lists them with
            counts and checksums; with a fingerprint the manifest alone, which says where the shards are.
        preview: The data page: images and counts of each class, sizes, pixels, copies, and what was not used.
        fingerprint: What prepare_data returned, with the same parameters, for the data set that it keeps on the
            volume; empty to read the source here.
    """
    arguments = locals()
    from pathlib import Path

    from kfp_image_classification.components.cluster.storage import datasets_directory
    from kfp_image_classification.components.ingest.options import IngestOptions
    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.lean_import import import_without
    from kfp_image_classification.components.step.options import options_from
    from kfp_image_classification.components.step.process_start import start_process
    from kfp_image_classification.components.step.stage_log import stage_log

    start_process()
    with reported("ingest"):
        options = options_from(IngestOptions, arguments)
        with import_without("keras"):
            import tensorflow  # noqa: F401
        from kfp_image_classification.components.ingest.kept_datasets import kept_dataset
        from kfp_image_classification.components.ingest.notable import not_used, notable
        from kfp_image_classification.components.ingest.part_folders import parts_folder
        from kfp_image_classification.components.ingest.preview import preview_page
        from kfp_image_classification.components.ingest.sharding import write_dataset, write_manifest_alone
        from kfp_image_classification.components.ingest.sources.opening import open_source

        log = stage_log("ingest")
        if fingerprint:
            kept = kept_dataset(fingerprint, datasets_directory())
            manifest = write_manifest_alone(kept, dataset, Path(shards.path))
        else:
            parts = parts_folder(options, None)
            manifest = write_dataset(open_source(options), options, Path(shards.path), log, parts)
        Path(preview.path).write_text(preview_page(Path(shards.path)), encoding="utf-8")
        counts = {name: split.examples for name, split in manifest.splits.items()}
        shards.metadata.update(
            {
                "dataset": manifest.name,
                "version": manifest.version,
                "fingerprint": manifest.fingerprint,
                "format": manifest.format,
                "image_shape": "x".join(map(str, manifest.image_shape)),
                "classes": len(manifest.class_names),
                **{f"{name}_examples": count for name, count in counts.items()},
            }
        )
        for sentence in [*not_used(manifest), *notable(manifest)]:
            log.info("%s", sentence)
        log.info("%s: %s", manifest.name, ", ".join(f"{count:,} {name}" for name, count in counts.items()))
