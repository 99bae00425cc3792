from typing import List

from kfp import dsl

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE
from kfp_image_classification.components.select.options import ChampionOptions
from kfp_image_classification.components.step.options import described_by


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False)
@described_by(ChampionOptions)
def find_champion(
    found: dsl.Output[dsl.Artifact],
    initial_uri: dsl.OutputPath(str),  # type: ignore[valid-type]
    deploy_backend: str = "auto",
    service_name: str = "",
    namespace: str = "",
    force: bool = False,
    initial_model: str = "",
    models: List[str] = [],  # noqa: B006 - KFP reads the default, it never changes it
) -> str:
    """Finds the deployed model, which new ones have to beat.

    Args:
        found: What is known of it; a note where there is none.
        initial_uri: The same for trainings that begin with the deployed model; `none` where none does or none is there:
            it is a part of what trainings are cached by.
        initial_model: As train takes it.
        models: As the pipelines take them; one may have an `initial_model` of its own.

    Returns:
        URI of its files, to be imported as a Model; of the note where there is none.
    """
    arguments = locals()
    from pathlib import Path

    from kfp_image_classification.components.contracts.deployed_model import NOTHING_DEPLOYED, begins_with_deployed
    from kfp_image_classification.components.contracts.evaluation import NoChampion
    from kfp_image_classification.components.select.champion import find_champion_model
    from kfp_image_classification.components.select.options import ChampionOptions
    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.options import options_from
    from kfp_image_classification.components.step.process_start import start_process
    from kfp_image_classification.components.step.stage_log import stage_log

    start_process()
    with reported("find-champion"):
        options = options_from(ChampionOptions, arguments)
        model = find_champion_model(options, stage_log("find-champion"))
        if isinstance(model, NoChampion):
            model.write(Path(found.path))
            uri = str(found.uri)
        else:
            Path(found.path).write_text(model.model_dump_json(), encoding="utf-8")
            uri = model.model_uri
        is_begun_with = begins_with_deployed(initial_model, models) and not isinstance(model, NoChampion)
        Path(initial_uri).parent.mkdir(parents=True, exist_ok=True)
        Path(initial_uri).write_text(uri if is_begun_with else NOTHING_DEPLOYED, encoding="utf-8")
        return uri
