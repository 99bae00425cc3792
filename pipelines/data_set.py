"""The steps from a source to a data set, as every pipeline has them: in parts where it is asked for, then checked."""

from typing import Any

from kfp import dsl

from kfp_image_classification.components.cluster.data_credentials import give_data_credentials
from kfp_image_classification.components.cluster.storage import mount_storage
from kfp_image_classification.components.ingest import ingest, prepare_data
from kfp_image_classification.pipelines.parallel_ingest import parallel_ingest


def data_set(pvc: Any, after: Any = None, known: Any = None, **source: Any) -> dsl.PipelineTask:
    """Adds the steps to the pipeline that is being written; a nested pipeline would hide the data page a level deeper.

    Args:
        pvc: On a cluster, the claim of the volume that keeps data sets.
        after: The step that they follow.
        known: What prepare_data takes as such.
        **source: The inputs that all of them share.

    Returns:
        The step Ingest.
    """
    found = {} if known is None else {"known": known}
    in_parts = parallel_ingest(**source, **found, pvc=pvc).set_display_name("Ingest in parts")
    if after is not None:
        in_parts.after(after)

    # Looks whether the data set is on the volume before the cache of ingest and train is believed.
    prepared = prepare_data(**source, **found, pvc=pvc)
    prepared.set_display_name("Prepare data").set_caching_options(False).after(in_parts)
    give_data_credentials(mount_storage(prepared, pvc))

    ingested = ingest(**source, fingerprint=prepared.output).set_display_name("Ingest")
    give_data_credentials(mount_storage(ingested, pvc))
    return ingested
