from kfp import dsl

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE
from kfp_image_classification.components.step.options import described_by
from kfp_image_classification.components.train.launchers.job_options import JobOptions
from kfp_image_classification.components.train.options import TrainOptions

# What the user sets on the task is for the workers' pods; this step itself only waits for them.
PASSED_ON = [
    dsl.TaskConfigField.RESOURCES,
    dsl.TaskConfigField.KUBERNETES_TOLERATIONS,
    dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR,
    dsl.TaskConfigField.KUBERNETES_AFFINITY,
    dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.ENV, apply_to_task=True),
    dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.KUBERNETES_VOLUMES, apply_to_task=True),
]


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False, task_config_passthroughs=PASSED_ON)
@described_by(TrainOptions, JobOptions)
def train(
    shards: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    curves: dsl.Output[dsl.HTML],
    task_config: dsl.TaskConfig,
    model_type: str = "cnn",
    backend: str = "auto",
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
    deployed_uri: str = "none",
    freeze_epochs: int = 0,
    fine_tuning_rate: float = 0.1,
    seed: int = 0,
    augmentation: str = "none",
    mixup: float = 0.0,
    keep: str = "best",
    select_by: str = "accuracy",
    patience: int = 0,
    image_cache_mb: int = 512,
    compute_dtype: str = "float32",
    devices: str = "auto",
    xla: str = "auto",
    gradient_dtype: str = "float32",
    exchange: str = "auto",
    max_restarts: int = 3,
    checkpoint_seconds: float = 15.0,
    hang_seconds: int = 10,
    stuck_seconds: int = 600,
    peer_seconds: int = 0,
    work_dir: str = "",
    run: str = "",
    worker_image: str = "",
    worker_cpu: str = "",
    worker_memory: str = "",
    worker_gpus: int = 0,
    pvc: str = "",
    job: dict = {},  # noqa: B006 - KFP reads the default, it never changes it
):
    """Trains one model with several workers in step (MultiWorkerMirroredStrategy) and exports it for serving.

    Args:
        shards: A data set from ingest, made for the same number of workers.
        model: The trained model: a SavedModel in the folder `1`, `model.keras` for further training, and metadata.
        metrics: Loss and accuracy after the epoch that became the model, and the speed.
        curves: A page with the learning curves.
        task_config: Filled in by KFP with what is set on the task (resources, volumes, tolerations ...), for the
            workers' pods.
        deployed_uri: What `initial_model` = `deployed` means: `initial_uri` of find_champion; `none` for none.
        peer_seconds: How long a worker waits for all others at the start: on a cluster at least `start_seconds` of
            `job`, in which a pod may start; 0 for a minute longer than that.
        work_dir: Folder for checkpoints, logs and TensorBoard; empty for the run's folder on the shared volume, and
            without one, a folder beside the model.
        run: Name of the pipeline run, recorded with the model; empty for its id on a cluster.
    """
    arguments = locals()
    from pathlib import Path

    from kfp_image_classification.components.cluster.local_backend import refuse_in_pod, train_backend_problem
    from kfp_image_classification.components.cluster.storage import run_id
    from kfp_image_classification.components.contracts.dataset_manifest import Dataset
    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.options import options_from
    from kfp_image_classification.components.step.process_start import start_process
    from kfp_image_classification.components.step.stage_log import stage_log
    from kfp_image_classification.components.train.launchers.job_options import JobOptions
    from kfp_image_classification.components.train.launchers.pod_template import TaskSettings
    from kfp_image_classification.components.train.options import TrainingJob, TrainOptions, check_fit
    from kfp_image_classification.components.train.starting_point import starting_point

    start_process()
    stage = f"train {model_type}"
    with reported(stage):
        job_options = options_from(JobOptions, arguments)
        options = options_from(TrainOptions, arguments, peer_seconds=peer_seconds or job_options.peer_seconds)
        refuse_in_pod(train_backend_problem("backend", options.backend))
        from kfp_image_classification.components.train.run_job import job_directory, run_job

        directory = job_directory(options, shards.path, Path(model.path), work_dir)
        run = run or run_id()
        log = stage_log(stage)
        manifest = Dataset(shards.path).manifest
        check_fit(options, manifest)
        start = starting_point(options, manifest, directory, log, deployed_uri)
        training = TrainingJob(options=options, dataset=shards.path, directory=str(directory), run=run, start=start)
        result = run_job(training, Path(model.path), log, job_options, TaskSettings.of(task_config))

        result.fill(model, metrics, curves, dataset_uri=shards.uri, work_dir=training.directory)
        log.info("spent %s", ", ".join(f"{name} {time:.1f}" for name, time in result.seconds.items() if time > 0.5))
        for number, restart in enumerate(result.restarts, 1):
            log.info("restart %d: %s", number, restart.words)
        log.info("val_accuracy %.4f after epoch %d of %d", *result.outcome)
