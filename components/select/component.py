from typing import List

from kfp import dsl

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE
from kfp_image_classification.components.select.leaderboard import SelectOptions
from kfp_image_classification.components.step.options import described_by


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False)
@described_by(SelectOptions)
def select(
    models: dsl.Input[List[dsl.Model]],
    evaluations: dsl.Input[List[dsl.Metrics]],
    best: dsl.Output[dsl.Model],
    leaderboard: dsl.Output[dsl.HTML],
    min_accuracy: float = 0.0,
    deploy_backend: str = "auto",
    service_name: str = "",
    namespace: str = "",
    force: bool = False,
) -> bool:
    """Selects the model with the best validation accuracy, and says whether it is good enough to be deployed.

    Args:
        models: Models from train.
        evaluations: Their metrics from evaluate, in the same order.
        best: The selected model: the same files, not a copy.
        leaderboard: A page that ranks all models.

    Returns:
        Whether the best model is to be deployed: it passed the gate, and is not worse than the deployed one.
    """
    arguments = locals()
    from pathlib import Path

    from kfp_image_classification.components.select.leaderboard import Candidate, SelectOptions, leaderboard_page, rank
    from kfp_image_classification.components.step.errors import InvalidInput, reported
    from kfp_image_classification.components.step.options import options_from
    from kfp_image_classification.components.step.process_owner import leave_with_owner
    from kfp_image_classification.components.step.stage_log import stage_log

    leave_with_owner()
    with reported("select"):
        options = options_from(SelectOptions, arguments)
        log = stage_log("select")
        if not models or len(models) != len(evaluations):
            raise InvalidInput(
                f"models and evaluations: got {len(models)} and {len(evaluations)}; give one evaluation a model, at "
                "least one"
            )
        champion = None
        if options.has_champion:
            from kfp_image_classification.components.select.champion import find_champion

            champion = find_champion(options.service_name, options.namespace, log)
        by_uri = {model.uri: model for model in models}
        ranking = rank(
            [
                Candidate(
                    name=str(model.metadata.get("model_type", model.name)),
                    uri=model.uri,
                    evaluation_uri=evaluation.uri,
                    dataset_uri=str(model.metadata.get("dataset_uri", "")),
                    images_per_second=float(model.metadata.get("images_per_second", 0)),
                    dataset_fingerprint=str(model.metadata.get("dataset_fingerprint", "")),
                    **{
                        name: evaluation.metadata[name]
                        for name in (
                            "val_accuracy",
                            "val_loss",
                            "test_accuracy",
                            "test_macro_f1",
                            "parameters",
                            "bytes",
                        )
                    },
                )
                for model, evaluation in zip(models, evaluations)  # noqa: B905 - lengths are checked above
            ],
            options,
            champion,
        )
        winner = by_uri[ranking.best.uri]
        best.uri = winner.uri
        best.metadata.update(
            {
                **winner.metadata,
                "val_accuracy": ranking.best.val_accuracy,
                "test_accuracy": ranking.best.test_accuracy,
            }
        )
        leaderboard.metadata["ranking"] = ranking.model_dump()
        Path(leaderboard.path).write_text(leaderboard_page(ranking))
        log.info(ranking.decision)
        return ranking.passed
