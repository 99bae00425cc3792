from kfp import dsl

from kfp_image_classification.components.cluster.images import TENSORFLOW_IMAGE
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.step.options import described_by


@dsl.component(base_image=TENSORFLOW_IMAGE, install_kfp_package=False)
@described_by(IngestOptions)
def ingest_part(
    part: str,
    dataset: str = "mnist_5k",
    data_dir: str = "",
    validation_share: float = 0.1,
    image_size: int = 0,
    workers: int = 2,
    seed: int = 0,
    record_format: str = "auto",
    ingest_parts: int = 2,
    pvc: str = "",
):
    """Writes one of several parts of a data set, each a task of a ParallelFor, on the volume or in the run's folder.

    The next step, prepare_data on a volume or ingest elsewhere, puts the parts together with the same options, and
    writes those that are missing. A part that is written twice is the same.

    Args:
        part: One of those that list_parts returned.
        pvc: The volume's claim, to be named when the volume cannot be written.
    """
    arguments = locals()
    from kfp_image_classification.components.cluster.storage import datasets_directory
    from kfp_image_classification.components.ingest.options import IngestOptions
    from kfp_image_classification.components.ingest.part_folders import parts_folder
    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.lean_import import import_without
    from kfp_image_classification.components.step.options import options_from
    from kfp_image_classification.components.step.process_start import start_process
    from kfp_image_classification.components.step.stage_log import stage_log

    start_process()
    with reported("ingest-part"):
        log = stage_log("ingest-part")
        options = options_from(IngestOptions, arguments)
        folder = parts_folder(options, datasets_directory(pvc))
        if part == "none" or folder is None:
            log.info("nothing to do: %s", "the data set is there" if folder else "no folder is there that steps share")
            return
        with import_without("keras"):
            import tensorflow  # noqa: F401
        from kfp_image_classification.components.ingest.parts import write_part
        from kfp_image_classification.components.ingest.shard_plan import plan_shards
        from kfp_image_classification.components.ingest.sources.opening import open_source

        number = int(part.partition("-")[0])
        plan = plan_shards(open_source(options), options)
        write_part(plan, number, options.ingest_parts, folder, log)
        log.info("part %d of %d is written", number + 1, options.ingest_parts)
