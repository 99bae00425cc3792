from typing import List

from kfp import dsl

from kfp_image_classification.components.cluster.images import TENSORFLOW_IMAGE
from kfp_image_classification.components.select.options import SelectOptions
from kfp_image_classification.components.step.options import described_by

# ruff: noqa: B006 - KFP reads the defaults, it never changes them


# The image that evaluate runs in has the statistics as well.
@dsl.component(base_image=TENSORFLOW_IMAGE, install_kfp_package=False)
@described_by(SelectOptions)
def select(
    models: dsl.Input[List[dsl.Model]],
    evaluations: dsl.Input[List[dsl.Metrics]],
    best: dsl.Output[dsl.Model],
    leaderboard: dsl.Output[dsl.HTML],
    champion: dsl.Input[dsl.Metrics] = None,
    select_by: str = "accuracy",
    gate: float = 0.0,
    min_recall: dict = {},
    deploy_backend: str = "auto",
) -> bool:
    """Selects a model by its validation images, and says whether it is to be deployed.

    Differences within chance decide nothing: of equal models the one with fewer parameters is selected, and a deployed
    model stays that is not beaten by more than chance.

    Args:
        models: Models from train.
        evaluations: Their metrics from evaluate, in the same order.
        best: The model to deploy, else the best new one: a copy of its files, with its metadata.
        leaderboard: A page that ranks all models.
        champion: The deployed model's metrics from measure_champion; without them, there is none to beat.

    Returns:
        Whether the model in `best` is to be deployed.
    """
    arguments = locals()
    from pathlib import Path

    from kfp_image_classification.components.contracts.selected_model import copy_model
    from kfp_image_classification.components.select.artifacts import contender_of, deployed_of, selection_of
    from kfp_image_classification.components.select.decision import decide
    from kfp_image_classification.components.select.explanation import leaderboard_of
    from kfp_image_classification.components.select.leaderboard import leaderboard_page
    from kfp_image_classification.components.select.options import SelectOptions
    from kfp_image_classification.components.step.errors import InvalidInput, reported
    from kfp_image_classification.components.step.options import options_from
    from kfp_image_classification.components.step.process_start import start_process
    from kfp_image_classification.components.step.stage_log import stage_log

    start_process()
    with reported("select"):
        options = options_from(SelectOptions, arguments)
        if not models or len(models) != len(evaluations):
            raise InvalidInput(
                f"models and evaluations: got {len(models)} and {len(evaluations)}; give one evaluation a model, at "
                "least one"
            )
        contenders = [contender_of(*pair) for pair in zip(models, evaluations)]  # noqa: B905 - checked above
        deployed = deployed_of(champion)
        ranking = leaderboard_of(decide(contenders, options, deployed), options, deployed)
        selection = selection_of(ranking, models)
        copy_model(selection.directory, Path(best.path))
        best.metadata.update(selection.metadata)
        leaderboard.metadata["ranking"] = ranking.model_dump(exclude_none=True)
        Path(leaderboard.path).write_text(leaderboard_page(ranking), encoding="utf-8")
        stage_log("select").info(ranking.decision)
        return ranking.passed or ranking.serves_champion
