"""The end of a pipeline that may be tracked in MLflow, as a pipeline of its own to be used as a step."""

from typing import List

from kfp import dsl, kubernetes

from kfp_image_classification.components.step.options import described_by
from kfp_image_classification.components.track import track

# Keys of the optional Secret `mlflow`, and what MLflow's client reads.
MLFLOW_CREDENTIALS = {
    "username": "MLFLOW_TRACKING_USERNAME",
    "password": "MLFLOW_TRACKING_PASSWORD",
    "token": "MLFLOW_TRACKING_TOKEN",
}


# KFP 2.17 cannot compile a dsl.If around a task that takes collected artifacts, but it can where they are the inputs
# of a pipeline.
@dsl.pipeline(name="tracking")
@described_by(track)
def tracking(
    models: dsl.Input[List[dsl.Model]],
    evaluations: dsl.Input[List[dsl.Metrics]],
    best: dsl.Input[dsl.Model],
    leaderboard: dsl.Input[dsl.HTML],
    good_enough: bool,
    mlflow_uri: str,
    mlflow_experiment: str,
    registered_model: str,
    kfp_ui: str,
):
    """Tracks the run in MLflow if there is a server; without one, no step starts.

    Args:
        mlflow_uri: Address of the MLflow server; empty for none.
    """
    with dsl.If(mlflow_uri != "", name="mlflow"):
        tracked = track(
            models=models,
            evaluations=evaluations,
            best=best,
            leaderboard=leaderboard,
            good_enough=good_enough,
            mlflow_uri=mlflow_uri,
            run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
            mlflow_experiment=mlflow_experiment,
            registered_model=registered_model,
            kfp_ui=kfp_ui,
        )
        tracked.set_display_name("Track").set_caching_options(False)
        kubernetes.use_secret_as_env(tracked, "mlflow", MLFLOW_CREDENTIALS, optional=True)
