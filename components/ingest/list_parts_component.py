from typing import List

from kfp import dsl

from kfp_image_classification.components.cluster.images import TENSORFLOW_IMAGE
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.step.options import described_by


@dsl.component(base_image=TENSORFLOW_IMAGE, install_kfp_package=False)
@described_by(IngestOptions)
def list_parts(
    dataset: str = "mnist_5k",
    data_dir: str = "",
    validation_share: float = 0.1,
    image_size: int = 0,
    workers: int = 2,
    seed: int = 0,
    record_format: str = "auto",
    ingest_parts: int = 2,
    pvc: str = "",
    known: str = "",
) -> List[str]:
    """Lists the parts of a data set that are to be written, for a ParallelFor of ingest_part.

    Never take this step from KFP's cache: what it does is to look whether the data set is on the volume already.

    Args:
        pvc: The volume's claim, to be named when the volume cannot be written.
        known: As prepare_data takes it.

    Returns:
        What ingest_part takes as `part`; a single `none` when nothing is left to do. On a volume, where files can be
        cleaned up, each name is new, so that no part is taken from KFP's cache.
    """
    arguments = locals()
    import secrets

    from kfp_image_classification.components.cluster.storage import datasets_directory
    from kfp_image_classification.components.ingest.kept_datasets import find_kept, find_known
    from kfp_image_classification.components.ingest.options import IngestOptions
    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.options import options_from
    from kfp_image_classification.components.step.process_start import start_process
    from kfp_image_classification.components.step.stage_log import stage_log

    start_process()
    with reported("list-parts"):
        log = stage_log("list-parts")
        options = options_from(IngestOptions, arguments)
        datasets = datasets_directory(pvc)
        if datasets and known and find_known(known, datasets, log):
            return ["none"]
        if datasets and find_kept(options, datasets, log):
            log.info("%s is on the volume already", options.dataset)
            return ["none"]
        mark = f"-{secrets.token_hex(4)}" if datasets else ""
        return [f"{part}{mark}" for part in range(options.ingest_parts)]
