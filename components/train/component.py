from kfp import dsl

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE

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
    seed: int = 0,
    augmentation: str = "none",
    compute_dtype: str = "float32",
    gradient_dtype: str = "float32",
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
        metrics: Last epoch's loss and accuracy, and the speed.
        curves: A page with the learning curves.
        task_config: Filled in by KFP with what is set on the task (resources, volumes, tolerations ...), for the
            workers' pods.
        model_type: The model variant: `cnn`, `cnn_dropout`, `cnn_batchnorm`, `cnn_small` or `resnet`.
        backend: What runs the workers: `tfjob` or `trainjob`, pods of a cluster; `local`, processes beside this step;
            `auto`, a TFJob when the step runs in a pod, else local processes.
        workers: Number of workers.
        epochs: Passes over the training split.
        batch_size: Images a replica takes in one step; the global batch is this times the number of replicas.
        learning_rates: Steps of the learning rate, as SHARE:RATE pairs: from that share of the epochs on, that rate.
        seed: Decides initial weights, dropout and the order of the images.
        augmentation: Random changes to the training images: `none`, `shift`, or `shift_flip` (for photographs).
        compute_dtype: What layers compute in: `float32`, or `bfloat16` (weights stay float32) where the machine has it.
        gradient_dtype: How gradients travel between workers: `float32`, or `bfloat16` with half the bytes.
        max_restarts: Times the job may start again from its last checkpoint after a worker was lost.
        checkpoint_seconds: Time between two checkpoints, at least; what a lost worker costs, at most.
        hang_seconds: Without a sign of life for so long, a worker counts as lost.
        stuck_seconds: When all others wait for it for so long, a worker counts as lost, too; must be longer than any
            checkpoint takes.
        peer_seconds: How long a worker waits for all others at the start: on a cluster at least `start_seconds` of
            `job`, in which a pod may start; 0 for a minute longer than that.
        work_dir: Folder for checkpoints, logs and TensorBoard; empty for the run's folder on the shared volume, and
            without one, a folder beside the model.
        run: Name of the pipeline run, recorded with the model; empty for its id on a cluster.
        worker_image: On a cluster, the workers' image; empty for the one of this version.
        worker_cpu: On a cluster, CPUs of each worker; empty for those set on the task, else 1.
        worker_memory: On a cluster, memory of each worker; empty for that set on the task, else 2Gi.
        worker_gpus: On a cluster, GPUs of each worker.
        pvc: On a cluster, the claim of the volume that the workers share with this step.
        job: On a cluster, rarer settings of the job; see the README.
    """
    from pathlib import Path

    from kfp_image_classification.components.cluster.storage import run_id
    from kfp_image_classification.components.step.errors import checked, reported
    from kfp_image_classification.components.step.process_owner import leave_with_owner
    from kfp_image_classification.components.step.stage_log import stage_log
    from kfp_image_classification.components.train.launchers.job_options import JobOptions
    from kfp_image_classification.components.train.launchers.pod_template import TaskSettings
    from kfp_image_classification.components.train.options import TrainingJob, TrainOptions

    leave_with_owner()
    stage = f"train {model_type}"
    with reported(stage):
        job_options = checked(
            JobOptions,
            worker_image=worker_image,
            worker_cpu=worker_cpu,
            worker_memory=worker_memory,
            worker_gpus=worker_gpus,
            pvc=pvc,
            job=job,
        )
        options = checked(
            TrainOptions,
            model_type=model_type,
            backend=backend,
            workers=workers,
            epochs=epochs,
            batch_size=batch_size,
            learning_rates=learning_rates,
            seed=seed,
            augmentation=augmentation,
            compute_dtype=compute_dtype,
            gradient_dtype=gradient_dtype,
            max_restarts=max_restarts,
            checkpoint_seconds=checkpoint_seconds,
            hang_seconds=hang_seconds,
            stuck_seconds=stuck_seconds,
            peer_seconds=peer_seconds or job_options.peer_seconds,
        )
        from kfp_image_classification.components.train.run_job import job_directory, run_job

        directory = job_directory(options, shards.path, Path(model.path), work_dir)
        run = run or run_id()
        training = TrainingJob(options=options, dataset=shards.path, directory=str(directory), run=run)
        log = stage_log(stage)
        result = run_job(training, Path(model.path), log, job_options, TaskSettings.of(task_config))

        result.fill(model, metrics, curves, dataset_uri=shards.uri, work_dir=training.directory)
        log.info("spent %s", ", ".join(f"{name} {time:.1f}" for name, time in result.seconds.items() if time > 0.5))
        log.info("val_accuracy %.4f after %d epochs", result.last_epoch["val_accuracy"], len(result.history))
