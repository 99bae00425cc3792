from typing import List

from kfp import dsl

from components.images import LAUNCHER_IMAGE


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False)
def select(
    models: dsl.Input[List[dsl.Model]],
    evaluations: dsl.Input[List[dsl.Metrics]],
    best: dsl.Output[dsl.Model],
    leaderboard: dsl.Output[dsl.HTML],
    min_accuracy: float = 0.0,
) -> bool:
    """Selects the model with the best validation accuracy, and says whether it is good enough to be deployed.

    Args:
        models: Models from train.
        evaluations: Their metrics from evaluate, in the same order.
        best: The selected model: the same files, not a copy.
        leaderboard: A page that ranks all models.
        min_accuracy: Gate: below this validation accuracy nothing is to be deployed.

    Returns:
        Whether the best model passed the gate.
    """
    from pathlib import Path

    from components.errors import InvalidInput, checked, reported
    from components.process_owner import leave_with_owner
    from components.select.leaderboard import Candidate, SelectOptions, leaderboard_page, rank
    from components.stage_log import stage_log

    leave_with_owner()
    with reported("select"):
        options = checked(SelectOptions, min_accuracy=min_accuracy)
        if not models or len(models) != len(evaluations):
            raise InvalidInput(
                f"models and evaluations: got {len(models)} and {len(evaluations)}; give one evaluation a model, at "
                "least one"
            )
        by_uri = {model.uri: model for model in models}
        ranking = rank(
            [
                Candidate(
                    name=str(model.metadata.get("model_type", model.name)),
                    uri=model.uri,
                    evaluation_uri=evaluation.uri,
                    dataset_uri=str(model.metadata.get("dataset_uri", "")),
                    images_per_second=float(model.metadata.get("images_per_second", 0)),
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
        stage_log("select").info(ranking.decision)
        return ranking.passed
