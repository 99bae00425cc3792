from kfp import dsl

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False)
def take_deployed(
    found: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
):
    """Takes the deployed model for trainings that begin with it; where there is none, takes nothing.

    Args:
        found: What find_champion says that trainings begin with.
        model: Its Keras model and its card, for train; an empty folder where it is no model.
    """
    from pathlib import Path

    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.process_start import start_process
    from kfp_image_classification.components.step.stage_log import stage_log
    from kfp_image_classification.components.train.deployed_model_files import copy_for_training

    start_process()
    with reported("take-deployed"):
        Path(model.path).mkdir(parents=True, exist_ok=True)
        if copy_for_training(Path(found.path), Path(model.path)):
            stage_log("take-deployed").info("trainings begin with %s", found.uri)
