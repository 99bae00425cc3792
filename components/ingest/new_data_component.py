from typing import NamedTuple

from kfp import dsl

from kfp_image_classification.components.cluster.images import TENSORFLOW_IMAGE
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.step.options import described_by


@dsl.component(base_image=TENSORFLOW_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
@described_by(IngestOptions)
def find_new_data(
    deployed: dsl.Input[dsl.Artifact],
    dataset: str = "mnist_5k",
    data_dir: str = "",
) -> NamedTuple("NewData", [("new_images", int), ("known_images", int), ("fingerprint", str)]):  # type: ignore[valid-type]
    """Counts the images that a source lists and the deployed model was not trained on; opens none.

    Never take this step from KFP's cache: what it does is to look.

    Args:
        deployed: What find_champion, of select, found.

    Returns:
        New images, images that the model was trained on (0 where that is not known), and its data set's fingerprint.
    """
    arguments = locals()
    from pathlib import Path

    from kfp_image_classification.components.contracts.deployed_model import DeployedModel
    from kfp_image_classification.components.contracts.evaluation import NoChampion
    from kfp_image_classification.components.ingest.new_data import NewData, new_data
    from kfp_image_classification.components.ingest.options import IngestOptions
    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.options import options_from
    from kfp_image_classification.components.step.process_start import start_process
    from kfp_image_classification.components.step.stage_log import stage_log

    start_process()
    with reported("find-new-data"):
        log, found = stage_log("find-new-data"), Path(deployed.path)
        options = options_from(IngestOptions, {**arguments, "validation_share": 0.1, "workers": 1, "seed": 0})
        none = NoChampion.read(found)
        if none and none.reason:
            log.warning("nothing is said of new images: %s", none.reason)
            return NewData(0, 0, "")
        model = None if none else DeployedModel.model_validate_json(found.read_text(encoding="utf-8"))
        return new_data(options, model, log)
