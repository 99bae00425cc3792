"""The two KFP components around a training job on Vertex AI: one before the CustomJob, one after it."""

from typing import List

from kfp import dsl

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE
from kfp_image_classification.components.step.options import described_by
from kfp_image_classification.components.train.custom_job import Machine
from kfp_image_classification.components.train.options import TrainOptions


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False)
@described_by(TrainOptions, Machine)
def plan_custom_job(
    shards: dsl.Input[dsl.Dataset],
    job: dsl.Output[dsl.Artifact],
    image: str = "",
    model_type: str = "cnn",
    workers: int = 2,
    epochs: int = 20,
    batch_size: int = 32,
    learning_rates: str = "0:1e-3 0.7:1e-4 0.9:1e-5",
    optimizer: str = "adam",
    weight_decay: float = 0.0,
    gradient_clip: float = 0.0,
    label_smoothing: float = 0.0,
    class_weights: str = "equal",
    weights: str = "none",
    initial_model: str = "",
    freeze_epochs: int = 0,
    fine_tuning_rate: float = 0.1,
    seed: int = 0,
    augmentation: str = "none",
    mixup: float = 0.0,
    keep: str = "best",
    select_by: str = "accuracy",
    patience: int = 0,
    compute_dtype: str = "float32",
    xla: str = "auto",
    gradient_dtype: str = "float32",
    exchange: str = "auto",
    machine_type: str = "n1-standard-4",
    accelerator_type: str = "",
    accelerator_count: int = 1,
    run: str = "",
) -> List[dict]:
    """Describes a distributed training as the worker pools of a Vertex AI CustomJob.

    Args:
        shards: A data set from ingest, made for the same number of workers.
        job: The job's own folder: checkpoints, TensorBoard files and, in the end, the model.
        workers: Number of machines.
        run: Name of the pipeline run, recorded with the model.

    Returns:
        The `worker_pool_specs` of CustomTrainingJobOp.
    """
    arguments = locals()
    from pathlib import Path

    from kfp_image_classification.components.contracts.dataset_manifest import Dataset
    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.options import options_from
    from kfp_image_classification.components.step.stage_log import stage_log
    from kfp_image_classification.components.train.custom_job import Machine, refuse_deployed, worker_pool_specs
    from kfp_image_classification.components.train.job_folder import claim_directory
    from kfp_image_classification.components.train.options import TrainingJob, TrainOptions, check_fit
    from kfp_image_classification.components.train.starting_point import starting_point

    with reported(f"plan {model_type}"):
        options = options_from(TrainOptions, arguments)
        machine = options_from(Machine, arguments)
        manifest = Dataset(shards.path).manifest
        check_fit(options, manifest)
        refuse_deployed(options)
        if options.exchange == "auto":
            # Nobody says that a replica of a CustomJob can be reached at another port than TF_CONFIG's.
            options = options.model_copy(update={"exchange": "ring"})
        start = starting_point(options, manifest, Path(job.path), stage_log(f"plan {model_type}"))
        training = TrainingJob(options=options, dataset=shards.path, directory=job.path, run=run, start=start)
        claim_directory(training)
        return worker_pool_specs(training, machine)


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False)
def collect_custom_job(
    job: dsl.Input[dsl.Artifact],
    shards: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    curves: dsl.Output[dsl.HTML],
    workers: int = 2,
):
    """Takes over what a finished CustomJob left in its folder; its outputs are those of train.

    Args:
        job: The job's folder from plan_custom_job.
        shards: The data set it was trained on.
        model: The trained model, in the job's folder.
        metrics: Loss and accuracy after the epoch that became the model, and the speed.
        curves: A page with the learning curves.
        workers: How many workers the job had.
    """
    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.stage_log import stage_log
    from kfp_image_classification.components.train.job_files import MODEL_DIRECTORY
    from kfp_image_classification.components.train.training_result import read_result

    with reported("collect"):
        result = read_result(job.path, workers, patience=60)
        model.uri = f"{job.uri}/{MODEL_DIRECTORY}"
        result.fill(model, metrics, curves, dataset_uri=shards.uri, work_dir=job.path)
        stage_log(f"collect {result.card.model_type}").info("val_accuracy %.4f after epoch %d of %d", *result.outcome)
