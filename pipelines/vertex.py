"""The same way from a data set to a served model on Vertex AI Pipelines: `python pipelines/vertex.py --compile`.

ingest -> for each model: plan -> CustomJob -> collect -> evaluate -> select -> (good enough?) -> upload, deploy
"""

from typing import List

from google_cloud_pipeline_components.types.artifact_types import UnmanagedContainerModel
from google_cloud_pipeline_components.v1.custom_job import CustomTrainingJobOp
from google_cloud_pipeline_components.v1.endpoint import EndpointCreateOp, ModelDeployOp
from google_cloud_pipeline_components.v1.model import ModelUploadOp
from kfp import dsl

from kfp_image_classification.components.deploy.vertex import servable_uri
from kfp_image_classification.components.evaluate import evaluate
from kfp_image_classification.components.ingest import ingest
from kfp_image_classification.components.select import select
from kfp_image_classification.components.step.options import described_by
from kfp_image_classification.components.train.vertex import collect_custom_job, plan_custom_job

# ruff: noqa: B006 - KFP reads the defaults, it never changes them


@dsl.pipeline(name="image-classification-vertex", display_name="Image classification on Vertex AI")
@described_by(plan_custom_job, ingest, select)
def vertex(
    dataset: str = "mnist_5k",
    data_dir: str = "",
    validation_share: float = 0.1,
    image_size: int = 0,
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
    compute_dtype: str = "float32",
    xla: str = "auto",
    gradient_dtype: str = "float32",
    exchange: str = "auto",
    seed: int = 0,
    select_by: str = "accuracy",
    gate: float = 0.9,
    min_recall: dict = {},
    service_name: str = "image-classifier",
    location: str = "us-central1",
    training_image: str = "",
    training_machine_type: str = "n1-standard-4",
    training_accelerator_type: str = "",
    training_accelerator_count: int = 1,
    training_timeout: str = "86400s",
    serving_image: str = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest",
    serving_machine_type: str = "n1-standard-2",
    serving_max_replicas: int = 1,
):
    """Ingests a data set, trains several models on it as CustomJobs, and deploys the best one to an endpoint.

    Args:
        data_dir: Folder with prepared TensorFlow Datasets; empty for the container's own disk.
        models: The models to train and compare, each as train takes its `model_type`: with settings of its own, too.
        select_by: What models, and the epochs of each, are compared by, on the validation images: `accuracy`,
            `macro_f1`, `balanced_accuracy`, `log_loss` or `top5`.
        workers: Machines that train each model in step.
        seed: Decides the validation images, initial weights, dropout, augmentation and the order of the images.
        service_name: Display name of the model and the endpoint.
        location: Region of the training jobs, the model and the endpoint.
        training_image: Image of the workers; empty for the one of this version, with NVIDIA's libraries where they have
            GPUs.
        training_machine_type: Compute Engine machine type of each worker.
        training_accelerator_type: GPU type of the workers; empty for none.
        training_accelerator_count: GPUs a worker.
        training_timeout: Seconds after which a training job is ended, with an `s` behind.
        serving_image: A TensorFlow serving container of Vertex AI.
        serving_machine_type: Compute Engine machine type of a replica of the service.
        serving_max_replicas: Replicas to which the service may grow.
    """
    ingested = ingest(
        dataset=dataset,
        data_dir=data_dir,
        validation_share=validation_share,
        image_size=image_size,
        workers=workers,
        seed=seed,
    ).set_display_name("Ingest")

    with dsl.ParallelFor(models, name="each-model") as model_type:
        planned = plan_custom_job(
            shards=ingested.outputs["shards"],
            model_type=model_type,
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
            compute_dtype=compute_dtype,
            xla=xla,
            gradient_dtype=gradient_dtype,
            exchange=exchange,
            seed=seed,
            image=training_image,
            machine_type=training_machine_type,
            accelerator_type=training_accelerator_type,
            accelerator_count=training_accelerator_count,
        ).set_display_name("Plan")
        custom_job = CustomTrainingJobOp(
            display_name=model_type,
            location=location,
            worker_pool_specs=planned.outputs["Output"],
            timeout=training_timeout,
            # A worker that comes back alone is of no use: all of them start again, from the last checkpoint.
            restart_job_on_worker_restart=True,
        ).set_display_name("Train")
        trained = (
            collect_custom_job(job=planned.outputs["job"], shards=ingested.outputs["shards"], workers=workers)
            .after(custom_job)
            .set_display_name("Collect")
        )
        evaluated = evaluate(model=trained.outputs["model"], shards=ingested.outputs["shards"]).set_display_name(
            "Evaluate"
        )

    selected = (
        select(
            models=dsl.Collected(trained.outputs["model"]),
            evaluations=dsl.Collected(evaluated.outputs["metrics"]),
            select_by=select_by,
            gate=gate,
            min_recall=min_recall,
        )
        .set_display_name("Select")
        .set_caching_options(False)
    )

    with dsl.If(selected.outputs["Output"] == True, name="good-enough"):  # noqa: E712 - a condition of the pipeline
        servable = dsl.importer(
            artifact_uri=servable_uri(model=selected.outputs["best"]).set_display_name("Servable").output,
            artifact_class=UnmanagedContainerModel,
            metadata={"containerSpec": {"imageUri": serving_image}},
        )
        uploaded = ModelUploadOp(
            display_name=service_name, location=location, unmanaged_container_model=servable.output
        ).set_display_name("Upload")
        endpoint = EndpointCreateOp(display_name=service_name, location=location).set_display_name("Endpoint")
        ModelDeployOp(
            model=uploaded.outputs["model"],
            endpoint=endpoint.outputs["endpoint"],
            traffic_split={"0": "100"},
            dedicated_resources_machine_type=serving_machine_type,
            dedicated_resources_min_replica_count=1,
            dedicated_resources_max_replica_count=serving_max_replicas,
        ).set_display_name("Deploy")


if __name__ == "__main__":
    from kfp_image_classification.pipelines.runner.compiled import compile_from_command_line

    compile_from_command_line(vertex, "vertex.yaml")
