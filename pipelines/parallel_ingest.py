"""The beginning of a pipeline whose data set is written in parts, as a pipeline of its own to be used as a step."""

from kfp import dsl

from kfp_image_classification.components.cluster.data_credentials import give_data_credentials
from kfp_image_classification.components.cluster.storage import mount_storage
from kfp_image_classification.components.ingest import ingest_part, list_parts
from kfp_image_classification.components.step.options import described_by


@dsl.pipeline(name="parallel-ingest")
@described_by(ingest_part, list_parts)
def parallel_ingest(
    dataset: str,
    data_dir: str,
    validation_share: float,
    image_size: int,
    workers: int,
    seed: int,
    record_format: str,
    ingest_parts: int,
    pvc: str,
    known: str = "",
):
    """Writes the parts of a data set at the same time; with one part, no step starts."""
    with dsl.If(ingest_parts > 1, name="in-parts"):
        listed = list_parts(
            dataset=dataset,
            data_dir=data_dir,
            validation_share=validation_share,
            image_size=image_size,
            workers=workers,
            seed=seed,
            record_format=record_format,
            ingest_parts=ingest_parts,
            pvc=pvc,
            known=known,
        )
        listed.set_display_name("List parts").set_caching_options(False)
        give_data_credentials(mount_storage(listed, pvc))
        with dsl.ParallelFor(listed.output, name="each-part") as part:
            written = ingest_part(
                part=part,
                dataset=dataset,
                data_dir=data_dir,
                validation_share=validation_share,
                image_size=image_size,
                workers=workers,
                seed=seed,
                record_format=record_format,
                ingest_parts=ingest_parts,
                pvc=pvc,
            )
            written.set_display_name("Ingest part").set_retry(2)
            give_data_credentials(mount_storage(written, pvc))
