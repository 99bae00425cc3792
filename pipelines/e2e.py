"""The whole way from a data set to a served model.

ingest -> for each model: train -> evaluate -> select -> (good enough?) -> deploy
"""

from typing import List

from kfp import dsl

from components.deploy import deploy
from components.evaluate import evaluate
from components.images import TENSORFLOW_IMAGE
from components.ingest import ingest
from components.select import select
from components.storage import mount_storage
from components.train import train

# ruff: noqa: B006 - KFP reads the defaults, it never changes them


@dsl.pipeline(name="image-classification", display_name="Image classification, end to end")
def e2e(
    dataset: str = "mnist_5k",
    data_dir: str = "",
    validation_share: float = 0.1,
    image_size: int = 0,
    models: List[str] = ["cnn", "cnn_dropout", "cnn_batchnorm"],
    workers: int = 2,
    epochs: int = 20,
    batch_size: int = 32,
    learning_rates: str = "0:1e-3 0.7:1e-4 0.9:1e-5",
    augmentation: str = "none",
    gradient_dtype: str = "float32",
    seed: int = 0,
    max_restarts: int = 3,
    min_accuracy: float = 0.9,
    service_name: str = "image-classifier",
    service_port: int = 0,
    train_backend: str = "auto",
    deploy_backend: str = "local",
    pvc: str = "image-classification",
    worker_image: str = TENSORFLOW_IMAGE,
    worker_cpu: str = "",
    worker_memory: str = "",
    worker_gpus: int = 0,
    job: dict = {},
):
    """Ingests a data set, trains several models on it, and deploys the best one if it is good enough.

    Args:
        dataset: `mnist_5k` (5,000 digits, no download), a TensorFlow Datasets name such as `mnist`, `fashion_mnist`
            or `cifar10`, or `image_folder:PATH` for PATH/CLASS/IMAGE.
        data_dir: Folder with prepared TensorFlow Datasets; empty for ~/tensorflow_datasets.
        validation_share: Share of the training images held out to select the best model.
        image_size: Height and width in pixels to which images are resized; 0 keeps the data set's own size.
        models: The model variants to train and compare.
        workers: Worker processes that train each model in step.
        epochs: Passes over the training images.
        batch_size: Images a replica takes in one step.
        learning_rates: Steps of the learning rate, as SHARE:RATE pairs: from that share of the epochs on, that rate.
        augmentation: Random changes to the training images: `none`, `shift`, or `shift_flip` (for photographs).
        gradient_dtype: How gradients travel between workers: `float32`, or `bfloat16` with half the bytes.
        seed: Decides the validation images, initial weights, dropout and the order of the images.
        max_restarts: Times a training job may start again from its last checkpoint after a worker was lost.
        min_accuracy: Validation accuracy below which nothing is deployed.
        service_name: Name of the service and of the model in its URLs; a DNS label.
        service_port: Port of a local server; 0 for any free one.
        train_backend: What runs the training workers: `tfjob`, `trainjob`, `local` processes, or `auto`: a TFJob on a
            cluster, local processes elsewhere.
        deploy_backend: What serves the model: `local`.
        pvc: On a cluster, the claim of the volume that ingest, train and evaluate share.
        worker_image: On a cluster, the workers' image.
        worker_cpu: On a cluster, CPUs of each worker; empty for 1.
        worker_memory: On a cluster, memory of each worker; empty for 2Gi.
        worker_gpus: On a cluster, GPUs of each worker.
        job: On a cluster, rarer settings of the training job as JSON; see components/train/README.md.
    """
    ingested = ingest(
        dataset=dataset,
        data_dir=data_dir,
        validation_share=validation_share,
        image_size=image_size,
        workers=workers,
        seed=seed,
    ).set_display_name("Ingest")
    mount_storage(ingested, pvc)

    with dsl.ParallelFor(models, name="each-model") as model_type:
        trained = train(
            shards=ingested.outputs["shards"],
            model_type=model_type,
            backend=train_backend,
            workers=workers,
            epochs=epochs,
            batch_size=batch_size,
            learning_rates=learning_rates,
            augmentation=augmentation,
            gradient_dtype=gradient_dtype,
            seed=seed,
            max_restarts=max_restarts,
            pvc=pvc,
            worker_image=worker_image,
            worker_cpu=worker_cpu,
            worker_memory=worker_memory,
            worker_gpus=worker_gpus,
            job=job,
        ).set_display_name("Train")
        mount_storage(trained, pvc)
        evaluated = evaluate(model=trained.outputs["model"], shards=ingested.outputs["shards"]).set_display_name(
            "Evaluate"
        )
        mount_storage(evaluated, pvc)

    selected = (
        select(
            models=dsl.Collected(trained.outputs["model"]),
            evaluations=dsl.Collected(evaluated.outputs["metrics"]),
            min_accuracy=min_accuracy,
        )
        .set_display_name("Select")
        .set_caching_options(False)
    )

    with dsl.If(selected.outputs["Output"] == True, name="good-enough"):  # noqa: E712 - a condition of the pipeline
        deploy(
            model=selected.outputs["best"],
            backend=deploy_backend,
            service_name=service_name,
            service_port=service_port,
        ).set_display_name("Deploy").set_caching_options(False)


if __name__ == "__main__":
    from pipelines.command_line import main

    main(e2e)
