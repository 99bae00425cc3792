"""The KFP component that leads a model to Vertex AI's serving containers."""

from kfp import dsl

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False)
def servable_uri(model: dsl.Input[dsl.Model]) -> str:
    """Names the folder of a model that holds its SavedModel: Vertex' TensorFlow containers take no version folders.

    Args:
        model: A model from train or select.

    Returns:
        URI of the newest version folder.
    """
    from kfp_image_classification.components.contracts.model_card import newest_version
    from kfp_image_classification.components.step.errors import reported

    with reported("servable"):
        return f"{model.uri}/{newest_version(model.path).name}"
