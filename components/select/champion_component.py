from kfp import dsl

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE
from kfp_image_classification.components.select.options import ChampionOptions
from kfp_image_classification.components.step.options import described_by


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False)
@described_by(ChampionOptions)
def find_champion(
    found: dsl.Output[dsl.Artifact],
    deploy_backend: str = "auto",
    service_name: str = "",
    namespace: str = "",
    force: bool = False,
) -> str:
    """Finds the deployed model, which new ones have to beat.

    Args:
        found: What is known of it; a note where there is none.

    Returns:
        URI of its files, to be imported as a Model; of the note where there is none.
    """
    arguments = locals()
    from pathlib import Path

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
        else:
            Path(found.path).write_text(model.model_dump_json(), encoding="utf-8")
        return str(found.uri if isinstance(model, NoChampion) else model.model_uri)
