from typing import List

from kfp import dsl

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE
from kfp_image_classification.components.step.options import described_by
from kfp_image_classification.components.track.options import TrackOptions


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False)
@described_by(TrackOptions)
def track(
    models: dsl.Input[List[dsl.Model]],
    evaluations: dsl.Input[List[dsl.Metrics]],
    best: dsl.Input[dsl.Model],
    leaderboard: dsl.Input[dsl.HTML],
    good_enough: bool,
    mlflow_uri: str,
    run_id: str,
    run_name: str = "",
    mlflow_experiment: str = "image-classification",
    registered_model: str = "image-classifier",
    alias: str = "champion",
    kfp_ui: str = "",
):
    """Writes a pipeline run to MLflow: one run a model, nested under one of the pipeline run; registers the best model.

    Args:
        models: Models from train.
        evaluations: Their metrics from evaluate, in the same order.
        best: The one that select chose; of a model that was deployed before, and stays, nothing new is registered.
        leaderboard: The page from select.
        good_enough: Whether it passed the gate; only then it is registered.
        run_id: Id of the pipeline run, `dsl.PIPELINE_JOB_ID_PLACEHOLDER`; what is tracked already is found by it.
        run_name: Name of the pipeline run, `dsl.PIPELINE_JOB_NAME_PLACEHOLDER`.
    """
    from pathlib import Path

    from kfp_image_classification.components.contracts.selected_model import BEATEN_URI, selected_uri
    from kfp_image_classification.components.step.errors import InvalidInput, reported
    from kfp_image_classification.components.step.process_start import start_process
    from kfp_image_classification.components.step.stage_log import stage_log
    from kfp_image_classification.components.track.options import track_options

    start_process()
    with reported("track"):
        options = track_options(
            mlflow_uri=mlflow_uri,
            mlflow_experiment=mlflow_experiment,
            registered_model=registered_model,
            alias=alias,
            kfp_ui=kfp_ui,
        )
        beaten = best.metadata.get(BEATEN_URI)
        chosen = beaten or selected_uri(best.uri, best.metadata)
        if len(models) != len(evaluations) or chosen not in {model.uri for model in models}:
            raise InvalidInput(
                f"models, evaluations and best: got {len(models)} models and {len(evaluations)} evaluations; give one "
                "evaluation a model, and one of the models as the best"
            )
        from kfp_image_classification.components.track.mlflow_server import connected
        from kfp_image_classification.components.track.tracked_run import EvaluatedModel, PipelineRun, track_run

        with connected(options.mlflow_uri) as client:
            track_run(
                client,
                options,
                PipelineRun(run_id, run_name),
                [
                    EvaluatedModel(
                        directory=Path(model.path),
                        history=model.metadata["history"],
                        # KFP adds properties of its own to those of an artifact.
                        scores={
                            name: value
                            for name, value in evaluation.metadata.items()
                            if isinstance(value, (int, float))
                        },
                        dataset_uri=str(model.metadata["dataset_uri"]),
                        selected=model.uri == chosen,
                    )
                    for model, evaluation in zip(models, evaluations)  # noqa: B905 - lengths are checked above
                ],
                good_enough and not beaten,
                Path(leaderboard.path),
                stage_log("track"),
            )
