"""Looks whether a service is asked about what its model knows, and whether there is more to learn; then trains anew.

find champion -> new data -> prepare data -> ingest -> champion, measured -> monitor -> (a reason?) -> all of e2e.py
"""

from typing import List

from kfp import dsl

from kfp_image_classification.components.cluster.data_credentials import give_data_credentials
from kfp_image_classification.components.cluster.storage import mount_storage
from kfp_image_classification.components.ingest import find_new_data
from kfp_image_classification.components.monitor import monitor
from kfp_image_classification.components.select import find_champion
from kfp_image_classification.components.step.options import described_by
from kfp_image_classification.pipelines.champion import champion_measured
from kfp_image_classification.pipelines.data_set import data_set
from kfp_image_classification.pipelines.e2e import e2e

# ruff: noqa: B006 - KFP reads the defaults, it never changes them


@dsl.pipeline(name="image-classification-retrain", display_name="Image classification, watched")
@described_by(monitor, e2e)
def retrain(
    events: str = "runs/payload-log",
    dataset: str = "mnist_5k",
    hours: float = 24.0,
    most_images: int = 5000,
    threshold: float = 0.2,
    feedback: str = "",
    labelled_dir: str = "",
    retrain_on: str = "drift",
    min_new_images: float = 100.0,
    push_to: str = "",
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
    initial_model: str = "deployed",
    freeze_epochs: int = 0,
    fine_tuning_rate: float = 0.1,
    mixup: float = 0.0,
    keep: str = "best",
    patience: int = 0,
    augmentation: str = "none",
    compute_dtype: str = "float32",
    gradient_dtype: str = "float32",
    exchange: str = "auto",
    image_cache_mb: int = 512,
    devices: str = "auto",
    xla: str = "auto",
    seed: int = 0,
    max_restarts: int = 3,
    select_by: str = "accuracy",
    gate: float = 0.9,
    min_recall: dict = {},
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
    """Compares what a service is asked, and what there is to learn from, with what its model knows; may train anew.

    The new model must beat the deployed one on the new data set's validation images, and can begin as a canary.

    Args:
        service_name: The service that is watched, and whose model a new one must beat.
    """
    deployed_now = (
        find_champion(
            deploy_backend=deploy_backend, service_name=service_name, namespace=service_namespace, force=False
        )
        .set_display_name("Find champion")
        .set_caching_options(False)
    )

    fresh = (
        find_new_data(deployed=deployed_now.outputs["found"], dataset=dataset, data_dir=data_dir)
        .set_display_name("New data")
        .set_caching_options(False)
    )
    give_data_credentials(mount_storage(fresh, pvc))

    # What the model was trained on, where the volume has it: the source may have grown since, and is not read then.
    ingested = data_set(
        pvc,
        known=fresh.outputs["fingerprint"],
        dataset=dataset,
        data_dir=data_dir,
        validation_share=validation_share,
        image_size=image_size,
        workers=workers,
        seed=seed,
        record_format=record_format,
        ingest_parts=ingest_parts,
    )

    measured = champion_measured(
        uri=deployed_now.outputs["Output"], shards=ingested.outputs["shards"], pvc=pvc
    ).set_display_name("Champion")

    watched = (
        monitor(
            shards=ingested.outputs["shards"],
            evaluation=measured.output,
            events=events,
            service_name=service_name,
            hours=hours,
            most_images=most_images,
            threshold=threshold,
            feedback=feedback,
            labelled_dir=labelled_dir,
            dataset=dataset,
            retrain_on=retrain_on,
            min_new_images=min_new_images,
            new_images=fresh.outputs["new_images"],
            known_images=fresh.outputs["known_images"],
            push_to=push_to,
        )
        .set_display_name("Monitor")
        .set_caching_options(False)
    )
    give_data_credentials(mount_storage(watched, pvc))

    with dsl.If(watched.outputs["Output"] != "", name="train-anew"):
        e2e(
            dataset=watched.outputs["Output"],
            data_dir=data_dir,
            validation_share=validation_share,
            image_size=image_size,
            record_format=record_format,
            ingest_parts=ingest_parts,
            models=models,
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
            mixup=mixup,
            keep=keep,
            patience=patience,
            augmentation=augmentation,
            compute_dtype=compute_dtype,
            gradient_dtype=gradient_dtype,
            exchange=exchange,
            image_cache_mb=image_cache_mb,
            devices=devices,
            xla=xla,
            seed=seed,
            max_restarts=max_restarts,
            select_by=select_by,
            gate=gate,
            min_recall=min_recall,
            force=False,
            service_name=service_name,
            service_port=service_port,
            service_namespace=service_namespace,
            runtime=runtime,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            canary_percent=canary_percent,
            service=service,
            train_backend=train_backend,
            deploy_backend=deploy_backend,
            pvc=pvc,
            worker_image=worker_image,
            worker_cpu=worker_cpu,
            worker_memory=worker_memory,
            worker_gpus=worker_gpus,
            job=job,
            mlflow_uri=mlflow_uri,
            mlflow_experiment=mlflow_experiment,
            kfp_ui=kfp_ui,
        ).set_display_name("Train anew")


if __name__ == "__main__":
    from kfp_image_classification.pipelines.runner.command_line import main

    main(retrain)
