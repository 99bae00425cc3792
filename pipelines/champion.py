"""The deployed model, found and measured on the images of today, as a pipeline of its own to be used as a step."""

from typing import List, NamedTuple

from kfp import dsl

from kfp_image_classification.components.cluster.storage import mount_storage
from kfp_image_classification.components.evaluate import measure_champion
from kfp_image_classification.components.select import find_champion
from kfp_image_classification.components.step.options import described_by


class Champion(NamedTuple):
    """The deployed model: its metrics, and its URI, for trainings that begin with it."""

    metrics: dsl.Metrics
    initial_uri: str


# KFP 2.17 imports from a URI that is a constant or an input of the pipeline around it, not from another step's output
# (backend/src/v2/component/importer_launcher.go, ImportSpecToMLMDArtifact).
@dsl.pipeline(name="champion-measured")
@described_by(measure_champion)
def champion_measured(uri: str, shards: dsl.Input[dsl.Dataset], pvc: str) -> dsl.Metrics:
    """Measures the model at a URI.

    Args:
        uri: What find_champion returned.
        pvc: On a cluster, the claim of the volume with the data set.
    """
    imported = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model, reimport=False)
    measured = measure_champion(champion=imported.output, shards=shards).set_display_name("Measure champion")
    mount_storage(measured, pvc)
    return measured.outputs["metrics"]


@dsl.pipeline(name="champion")
@described_by(find_champion, measure_champion)
def champion(
    shards: dsl.Input[dsl.Dataset],
    deploy_backend: str,
    service_name: str,
    namespace: str,
    force: bool,
    initial_model: str,
    models: List[str],
    pvc: str,
) -> Champion:
    """Finds the deployed model and measures it.

    Args:
        pvc: On a cluster, the claim of the volume with the data set.
    """
    found = (
        find_champion(
            deploy_backend=deploy_backend,
            service_name=service_name,
            namespace=namespace,
            force=force,
            initial_model=initial_model,
            models=models,
        )
        .set_display_name("Find champion")
        .set_caching_options(False)
    )
    measured = champion_measured(uri=found.outputs["Output"], shards=shards, pvc=pvc)
    return Champion(metrics=measured.output, initial_uri=found.outputs["initial_uri"])
