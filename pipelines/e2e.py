"""The whole way from a data set to a served model.

prepare data -> ingest -> for each model: train -> evaluate -> select -> (good enough?) -> deploy
                       -> champion, the deployed model, ----->        -> (MLflow server?) -> track
"""

from typing import List

from kfp import dsl, kubernetes

from kfp_image_classification.components.cluster.data_credentials import give_data_credentials
from kfp_image_classification.components.cluster.storage import RUN_ID_FIELD, RUN_ID_VARIABLE, mount_storage
from kfp_image_classification.components.deploy import deploy
from kfp_image_classification.components.evaluate import evaluate
from kfp_image_classification.components.ingest import ingest
from kfp_image_classification.components.preflight import preflight
from kfp_image_classification.components.select import find_champion, select
from kfp_image_classification.components.step.options import described_by
from kfp_image_classification.components.train import train
from kfp_image_classification.pipelines.champion import champion
from kfp_image_classification.pipelines.data_set import data_set
from kfp_image_classification.pipelines.tracking import tracking

# ruff: noqa: B006 - KFP reads the defaults, it never changes them


@dsl.pipeline(name="image-classification", display_name="Image classification, end to end")
@described_by(train, ingest, deploy, select, find_champion, tracking)
def e2e(
    dataset: str = "mnist_5k",
    data_dir: str = "",
    validation_share: float = 0.1,
    image_size: int = 0,
    record_format: str = "auto",
    ingest_parts: int = 1,
    models: List[str] = ["cnn", "cnn_dropout", "cnn_batchnorm"],
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
    augmentation: str = "none",
    mixup: float = 0.0,
    keep: str = "best",
    patience: int = 0,
    image_cache_mb: int = 512,
    compute_dtype: str = "float32",
    devices: str = "auto",
    xla: str = "auto",
    gradient_dtype: str = "float32",
    exchange: str = "auto",
    seed: int = 0,
    max_restarts: int = 3,
    select_by: str = "accuracy",
    gate: float = 0.9,
    min_recall: dict = {},
    force: bool = False,
    service_name: str = "image-classifier",
    service_port: int = 0,
    service_namespace: str = "",
    runtime: str = "tensorflow",
    min_replicas: int = 1,
    max_replicas: int = 3,
    canary_percent: int = 0,
    service: dict = {},
    train_backend: str = "auto",
    deploy_backend: str = "auto",
    pvc: str = "image-classification",
    worker_image: str = "",
    worker_cpu: str = "",
    worker_memory: str = "",
    worker_gpus: int = 0,
    job: dict = {},
    mlflow_uri: str = "",
    mlflow_experiment: str = "image-classification",
    kfp_ui: str = "",
):
    """Ingests a data set, trains several models on it, and deploys the best one if it is good enough.

    Args:
        models: The models to train and compare, each as train takes its `model_type`: with settings of its own, too.
        select_by: What models, and the epochs of each, are compared by, on the validation images: `accuracy`,
            `macro_f1`, `balanced_accuracy`, `log_loss` or `top5`.
        seed: Decides the validation images, initial weights, dropout, augmentation and the order of the images.
        service_namespace: On a cluster, where the service is; empty for the namespace in which the pipeline runs.
        train_backend: What runs the training workers: `tfjob`, `trainjob`, `local` processes, or `auto`: a TFJob on a
            cluster, local processes elsewhere.
        deploy_backend: What serves the model: `kserve`, a `local` process, or `auto`: KServe on a cluster, a local
            process elsewhere.
        pvc: On a cluster, the claim of the volume that ingest, train and evaluate share.
        mlflow_uri: Address of an MLflow server that is to keep the models and their metrics; empty for none.
    """
    checked = (
        preflight(train_backend=train_backend, deploy_backend=deploy_backend, pvc=pvc)
        .set_display_name("Preflight")
        .set_caching_options(False)
    )

    ingested = data_set(
        pvc,
        after=checked,
        dataset=dataset,
        data_dir=data_dir,
        validation_share=validation_share,
        image_size=image_size,
        workers=workers,
        seed=seed,
        record_format=record_format,
        ingest_parts=ingest_parts,
    )

    # Found before hours of training go by: an account that may not look is told so now.
    deployed_now = champion(
        shards=ingested.outputs["shards"],
        deploy_backend=deploy_backend,
        service_name=service_name,
        namespace=service_namespace,
        force=force,
        initial_model=initial_model,
        models=models,
        pvc=pvc,
    ).set_display_name("Champion")

    with dsl.ParallelFor(models, name="each-model") as model_type:
        trained = train(
            shards=ingested.outputs["shards"],
            deployed_uri=deployed_now.outputs["initial_uri"],
            model_type=model_type,
            backend=train_backend,
            workers=workers,
            epochs=epochs,
            batch_size=batch_size,
            learning_rates=learning_rates,
            optimizer=optimizer,
            weight_decay=weight_decay,
            gradient_clip=gradient_clip,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            weights=weights,
            initial_model=initial_model,
            freeze_epochs=freeze_epochs,
            fine_tuning_rate=fine_tuning_rate,
            augmentation=augmentation,
            mixup=mixup,
            keep=keep,
            select_by=select_by,
            patience=patience,
            image_cache_mb=image_cache_mb,
            compute_dtype=compute_dtype,
            devices=devices,
            xla=xla,
            gradient_dtype=gradient_dtype,
            exchange=exchange,
            seed=seed,
            max_restarts=max_restarts,
            pvc=pvc,
            worker_image=worker_image,
            worker_cpu=worker_cpu,
            worker_memory=worker_memory,
            worker_gpus=worker_gpus,
            job=job,
        ).set_display_name("Train")
        give_data_credentials(mount_storage(trained, pvc))
        evaluated = evaluate(model=trained.outputs["model"], shards=ingested.outputs["shards"]).set_display_name(
            "Evaluate"
        )
        mount_storage(evaluated, pvc)

    selected = (
        select(
            models=dsl.Collected(trained.outputs["model"]),
            evaluations=dsl.Collected(evaluated.outputs["metrics"]),
            champion=deployed_now.outputs["metrics"],
            select_by=select_by,
            gate=gate,
            min_recall=min_recall,
            deploy_backend=deploy_backend,
        )
        .set_display_name("Select")
        .set_caching_options(False)
    )

    with dsl.If(selected.outputs["Output"] == True, name="good-enough"):  # noqa: E712 - a condition of the pipeline
        deployed = (
            deploy(
                model=selected.outputs["best"],
                backend=deploy_backend,
                service_name=service_name,
                service_port=service_port,
                namespace=service_namespace,
                runtime=runtime,
                min_replicas=min_replicas,
                max_replicas=max_replicas,
                canary_percent=canary_percent,
                service=service,
            )
            .set_display_name("Deploy")
            .set_caching_options(False)
        )
        kubernetes.use_field_path_as_env(deployed, RUN_ID_VARIABLE, RUN_ID_FIELD)

    # Nothing depends on it: what cannot be tracked is deployed all the same.
    tracking(
        models=dsl.Collected(trained.outputs["model"]),
        evaluations=dsl.Collected(evaluated.outputs["metrics"]),
        best=selected.outputs["best"],
        leaderboard=selected.outputs["leaderboard"],
        good_enough=selected.outputs["Output"],
        mlflow_uri=mlflow_uri,
        mlflow_experiment=mlflow_experiment,
        registered_model=service_name,
        kfp_ui=kfp_ui,
    ).set_display_name("Tracking")


if __name__ == "__main__":
    from kfp_image_classification.pipelines.runner.command_line import main

    main(e2e)
