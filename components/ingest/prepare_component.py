from kfp import dsl

from kfp_image_classification.components.cluster.images import TENSORFLOW_IMAGE
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.step.options import described_by


@dsl.component(base_image=TENSORFLOW_IMAGE, install_kfp_package=False)
@described_by(IngestOptions)
def prepare_data(
    dataset: str = "mnist_5k",
    data_dir: str = "",
    validation_share: float = 0.1,
    image_size: int = 0,
    workers: int = 2,
    seed: int = 0,
    record_format: str = "auto",
    ingest_parts: int = 1,
    pvc: str = "",
    known: str = "",
) -> str:
    """Makes sure that a data set is on the volume, whole: finds the one of an earlier run, or makes it.

    Never take this step from KFP's cache: what it does is to look. The step after it, ingest, may be, as its cache
    entry is of this very data set. Without a volume there is nothing to do: ingest keeps the shards in its artifact.

    Args:
        pvc: The volume's claim, to be named when the volume cannot be written.
        known: Fingerprint of a data set that is taken as it is, where it is on the volume and whole: that of the
            deployed model, from find_new_data, whatever the source has now. Empty to look at the source.

    Returns:
        The data set's fingerprint, for ingest; empty without a volume.
    """
    arguments = locals()
    from pathlib import Path

    from kfp_image_classification.components.cluster.storage import datasets_directory
    from kfp_image_classification.components.ingest.kept_datasets import find_known, keep_dataset
    from kfp_image_classification.components.ingest.options import IngestOptions
    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.options import options_from
    from kfp_image_classification.components.step.process_start import start_process
    from kfp_image_classification.components.step.stage_log import stage_log

    start_process()
    with reported("prepare-data"):
        log = stage_log("prepare-data")
        options = options_from(IngestOptions, arguments)
        datasets = datasets_directory(pvc)
        if datasets is None:
            log.info("no volume is mounted: ingest keeps the shards in its artifact")
            return ""

        if known and (found := find_known(known, datasets, log)):
            return found.manifest.fingerprint

        def make(folder: Path) -> None:
            from kfp_image_classification.components.step.lean_import import import_without

            with import_without("keras"):  # TensorFlow takes its time, which a data set that is there does not need
                import tensorflow  # noqa: F401
            from kfp_image_classification.components.ingest.part_folders import parts_folder
            from kfp_image_classification.components.ingest.sharding import write_dataset
            from kfp_image_classification.components.ingest.sources.opening import open_source

            write_dataset(open_source(options), options, folder, log, parts_folder(options, datasets))

        return keep_dataset(options, datasets, make, log).manifest.fingerprint
