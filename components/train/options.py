"""What train takes, and what it accepts."""

import json
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kfp_image_classification.components.cluster.kubernetes_client import in_cluster
from kfp_image_classification.components.contracts.dataset_manifest import Dataset, DatasetManifest
from kfp_image_classification.components.step.errors import InvalidInput, run_checks
from kfp_image_classification.components.train.learning_rate import LearningRateSteps
from kfp_image_classification.components.train.variants import AUGMENTATIONS, SMALLEST_SIDE, check_model

TrainBackend = Literal["auto", "local", "tfjob", "trainjob"]
Devices = Literal["auto", "cpu", "gpu"]


def _known_model(name: str) -> str:
    if name not in SMALLEST_SIDE:
        raise ValueError(f"unknown model; choose from {', '.join(sorted(SMALLEST_SIDE))}")
    return name


def _known_augmentation(name: str) -> str:
    if name not in AUGMENTATIONS:
        raise ValueError(f"unknown augmentation; choose from {', '.join(AUGMENTATIONS)}")
    return name


def _schedule(text: str) -> str:
    LearningRateSteps.parse(text)
    return text


class TrainOptions(BaseModel):
    """Parameters of train.

    Attributes:
        model_type: The model variant: `cnn`, `cnn_dropout`, `cnn_batchnorm`, `cnn_small` or `resnet`.
        backend: What runs the workers: `tfjob` or `trainjob`, pods of a cluster; `local`, processes beside this step;
            `auto`, a TFJob when this is a pod, else local processes.
        workers: Workers that train each model in step.
        epochs: Passes over the training split.
        batch_size: Images a replica takes in one step; the global batch is this times the number of replicas.
        learning_rates: Steps of the learning rate, as SHARE:RATE pairs: from that share of the epochs on, that rate.
        seed: Decides initial weights, dropout and the order of the images.
        augmentation: Random changes to the training images: `none`, `shift`, or `shift_flip` (for photographs).
        image_cache_mb: Memory of each worker, in MB, in which decoded images of an encoded data set are kept: they are
            decoded once then, and not in every epoch.
        compute_dtype: What layers compute in: `float32`, or `bfloat16` (weights stay float32) where the machine has it.
        devices: What workers compute on: `cpu`, `gpu` (it fails where there is none), or `auto`, GPUs where there are
            some. Local workers share the machine's out; on a cluster each has those that `worker_gpus` gives it.
        xla: Whether XLA compiles the training step: `on`, `off`, or `auto`, on GPUs. A model that it cannot compile is
            trained without.
        gradient_dtype: How gradients travel between workers: `float32`, or `bfloat16` with half the bytes.
        exchange: What sums gradients between workers: `sockets`, TensorFlow's `ring` (NCCL where workers have GPUs of
            their own), or `auto`: sockets between CPUs.
        max_restarts: Times the job may start again from its last checkpoint after a worker was lost.
        checkpoint_seconds: Time between two checkpoints, at least; what a lost worker costs, at most.
        hang_seconds: Without a sign of life for so long, a worker counts as lost.
        stuck_seconds: When all others wait for it for so long, a worker counts as lost, too; must be longer than any
            call of TensorFlow, checkpoint or export takes.
        peer_seconds: How long a worker waits for all others at the start; on a cluster at least as long as a pod may
            take to start.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model_type: Annotated[str, AfterValidator(_known_model)]
    backend: TrainBackend = "auto"
    workers: int = Field(ge=1, le=1024)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rates: Annotated[str, AfterValidator(_schedule)]
    seed: int = Field(ge=0, lt=2**31)
    augmentation: Annotated[str, AfterValidator(_known_augmentation)] = "none"
    image_cache_mb: int = Field(default=512, ge=0)
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    devices: Devices = "auto"
    xla: Literal["auto", "on", "off"] = "auto"
    gradient_dtype: Literal["float32", "bfloat16"] = "float32"
    exchange: Literal["auto", "sockets", "ring"] = "auto"
    max_restarts: int = Field(default=3, ge=0)
    checkpoint_seconds: float = Field(default=15.0, ge=0)
    hang_seconds: int = Field(default=10, ge=2)
    stuck_seconds: int = Field(default=600, ge=10)
    peer_seconds: int = Field(default=660, ge=1)

    @property
    def resolved_backend(self) -> str:
        if self.backend == "auto":
            return "tfjob" if in_cluster() else "local"
        return self.backend


class TrainingJob(BaseModel):
    """All that a worker needs to know; travels to it as JSON.

    Attributes:
        options: The parameters.
        dataset: Folder of the data set's manifest.
        directory: The job's own folder, the same for all workers: checkpoints, logs, TensorBoard, the model.
        run: Name of the pipeline run, for the model's metadata.
        gpus: How many GPUs the launcher gave each worker.
        shares_gpu: Whether it gave the same GPU to several.
    """

    model_config = ConfigDict(frozen=True)

    options: TrainOptions
    dataset: str
    directory: str
    run: str = ""
    gpus: int = 0
    shares_gpu: bool = False

    def identity(self) -> str:
        """What must be the same for a job to continue from another's checkpoints, as text."""
        return self.identity_of(self.options, self.dataset)

    def for_devices(self, gpus: int) -> "TrainingJob":
        """The job of workers that have so many GPUs each, or none: a pod may see those that others were given."""
        options = self.options.model_copy(update={"devices": "gpu" if gpus else "cpu"})
        return self.model_copy(update={"options": options, "gpus": gpus})

    @staticmethod
    def identity_of(options: TrainOptions, dataset: str) -> str:
        # These change how a job is run, not what comes out.
        indifferent = {"backend", "devices", "xla", "max_restarts", "checkpoint_seconds"}
        indifferent |= {"hang_seconds", "stuck_seconds", "peer_seconds"}
        return json.dumps({"dataset": Dataset(dataset).manifest.fingerprint, **options.model_dump(exclude=indifferent)})


def check_batch(options: TrainOptions, train_examples: int) -> None:
    """Checks that the training split fills at least one global batch.

    Raises:
        InvalidInput: With the largest batch size that it can fill.
    """
    global_batch = options.workers * options.batch_size
    if global_batch > train_examples:
        raise InvalidInput(
            f"batch_size = {options.batch_size}: {options.workers} workers make a global batch of {global_batch}, more "
            f"than the {train_examples} training images; use at most {train_examples // options.workers}"
        )


def check_fit(options: TrainOptions, manifest: DatasetManifest) -> None:
    """Checks that a data set and the options go together.

    Raises:
        InvalidInput: With every reason why they do not.
    """
    train = manifest.splits["train"]
    run_checks(
        [
            lambda: check_batch(options, train.examples),
            lambda: _check_shards(options, len(train.shards)),
            lambda: check_model(options.model_type, manifest.image_shape),
        ]
    )


def _check_shards(options: TrainOptions, shards: int) -> None:
    if shards % options.workers:
        raise InvalidInput(
            f"workers = {options.workers}: the data set has {shards} training shards, which is not a multiple; ingest "
            "it with the same number of workers"
        )
