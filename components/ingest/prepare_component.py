from kfp import dsl

from kfp_image_classification.components.cluster.images import TENSORFLOW_IMAGE


@dsl.component(base_image=TENSORFLOW_IMAGE, install_kfp_package=False)
def prepare_data(
    dataset: str = "mnist_5k",
    data_dir: str = "",
    validation_share: float = 0.1,
    image_size: int = 0,
    workers: int = 2,
    seed: int = 0,
    pvc: str = "",
) -> str:
    """Makes sure that a data set is on the volume, whole: finds the one of an earlier run, or makes it.

    Never take this step from KFP's cache: what it does is to look. The step after it, ingest, may be, as its cache
    entry is of this very data set. Without a volume there is nothing to do: ingest keeps the shards in its artifact.

    Args:
        dataset: As for ingest, like all others here.
        data_dir: Folder with prepared TensorFlow Datasets; empty for ~/tensorflow_datasets.
        validation_share: Share of the training images held out to select the best model, above 0 and up to 0.5.
        image_size: Height and width in pixels to which images are resized; 0 keeps the data set's own size.
        workers: Training workers to prepare for: the number of shards is a multiple of it.
        seed: Decides which images validate, and the order of the records.
        pvc: The volume's claim, to be named when the volume cannot be written.

    Returns:
        The data set's fingerprint, for ingest; empty without a volume.
    """
    from pathlib import Path

    from kfp_image_classification.components.cluster.storage import datasets_directory
    from kfp_image_classification.components.ingest.kept_datasets import keep_dataset
    from kfp_image_classification.components.ingest.options import IngestOptions
    from kfp_image_classification.components.step.errors import checked, reported
    from kfp_image_classification.components.step.process_owner import leave_with_owner
    from kfp_image_classification.components.step.stage_log import stage_log

    leave_with_owner()
    with reported("prepare-data"):
        log = stage_log("prepare-data")
        options = checked(
            IngestOptions,
            dataset=dataset,
            data_dir=data_dir,
            validation_share=validation_share,
            image_size=image_size,
            workers=workers,
            seed=seed,
        )
        datasets = datasets_directory(pvc)
        if datasets is None:
            log.info("no volume is mounted: ingest keeps the shards in its artifact")
            return ""

        def make(folder: Path) -> None:
            from kfp_image_classification.components.step.lean_import import import_without

            with import_without("keras"):  # TensorFlow takes its time, which a data set that is there does not need
                import tensorflow  # noqa: F401
            from kfp_image_classification.components.ingest.sharding import write_dataset
            from kfp_image_classification.components.ingest.sources import open_source

            write_dataset(open_source(options), options, folder, log)

        return keep_dataset(options, datasets, make, log).manifest.fingerprint
