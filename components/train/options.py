"""What train takes, and what it accepts."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from kfp_image_classification.components.cluster.kubernetes_client import in_cluster
from kfp_image_classification.components.contracts.dataset_manifest import Dataset, DatasetManifest
from kfp_image_classification.components.contracts.deployed_model import DEPLOYED
from kfp_image_classification.components.contracts.measures import TOP_FROM_CLASSES, MeasureName
from kfp_image_classification.components.contracts.model_card import StartedFrom
from kfp_image_classification.components.step.errors import InvalidInput, run_checks
from kfp_image_classification.components.train.class_weights import EQUAL, class_weights, parse_class_weights
from kfp_image_classification.components.train.learning_rate import Schedule
from kfp_image_classification.components.train.model_settings import EXPECTED, ModelSettings
from kfp_image_classification.components.train.variants import AUGMENTATIONS, BACKBONES, SMALLEST_SIDE, check_model
from kfp_image_classification.components.train.weight_source import IMAGENET, NONE, check_source

TrainBackend = Literal["auto", "local", "tfjob", "trainjob"]
Devices = Literal["auto", "cpu", "gpu"]


# What a model may have settings for.
SETTINGS = (
    "epochs",
    "batch_size",
    "learning_rates",
    "optimizer",
    "weight_decay",
    "gradient_clip",
    "label_smoothing",
    "class_weights",
    "seed",
    "augmentation",
    "mixup",
    "keep",
    "patience",
    "compute_dtype",
    "gradient_dtype",
    "weights",
    "initial_model",
    "freeze_epochs",
    "fine_tuning_rate",
)


def _known_model(text: str) -> str:
    model = ModelSettings.parse(text)
    if model.is_own and model.architecture.split(":")[0] in SMALLEST_SIDE:
        raise ValueError(EXPECTED)
    if not model.is_own and model.architecture not in SMALLEST_SIDE:
        raise ValueError(
            f"unknown model; choose from {', '.join(sorted(SMALLEST_SIDE))}, or give a function of your own as "
            "my_package.models:build"
        )
    if unknown := [name for name in model.settings if name not in SETTINGS]:
        raise ValueError(f"a model has no setting {', '.join(unknown)}; choose from {', '.join(SETTINGS)}")
    return model.text


def _known_augmentation(name: str) -> str:
    if name not in AUGMENTATIONS:
        raise ValueError(f"unknown augmentation; choose from {', '.join(AUGMENTATIONS)}")
    return name


def _schedule(text: str) -> str:
    Schedule.parse(text)
    return text


def _class_weights(text: str) -> str:
    parse_class_weights(text)
    return text


def _weights(weights: str, others: ValidationInfo) -> str:
    model = ModelSettings.parse(others.data["model_type"]).architecture if "model_type" in others.data else ""
    if weights == IMAGENET and model and model not in BACKBONES:
        raise ValueError(f"there are none of {model}; give a path, or one of the models {', '.join(BACKBONES)}")
    return check_source(weights) if weights not in (NONE, IMAGENET) else weights


def _initial_model(source: str, others: ValidationInfo) -> str:
    if source and others.data.get("weights", NONE) != NONE:
        raise ValueError(
            f"weights = {others.data['weights']!r} is given, too; weights takes all layers but the head from "
            "somewhere, initial_model all: give one of them"
        )
    return check_source(source, only_models=True) if source not in ("", DEPLOYED) else source


def _freeze_epochs(count: int, others: ValidationInfo) -> int:
    given = others.data
    if count and given.get("weights") == NONE and given.get("initial_model") == "":
        raise ValueError("there are no weights to keep; give weights or initial_model, or 0")
    if count > given.get("epochs", count):
        raise ValueError(f"the training has {given['epochs']} epochs; give at most so many")
    return count


def _decay(decay: float, others: ValidationInfo) -> float:
    optimizer = others.data.get("optimizer")
    if decay and optimizer == "adam":
        raise ValueError("adam takes none; use optimizer = adamw, or sgd")
    if not decay and optimizer == "adamw":
        raise ValueError("adamw without it is adam; give one, such as 0.01, or use optimizer = adam")
    return decay


class TrainOptions(BaseModel):
    """Parameters of train.

    Attributes:
        model_type: The model variant: `cnn`, `cnn_dropout`, `cnn_batchnorm`, `cnn_small` or `resnet`; a backbone of
            keras.applications: `mobilenet_v3_small`, `efficientnet_v2_b0`, `resnet50_v2` or `convnext_tiny`; or the
            import path of a function of your own, `my_package.models:build`. Settings of this model alone may follow,
            as in `resnet:batch_size=64,learning_rates=cosine:2e-3`, or all as JSON, `{"model": "resnet", "batch_size":
            64}`.
        backend: What runs the workers: `tfjob` or `trainjob`, pods of a cluster; `local`, processes beside this step;
            `auto`, a TFJob when this is a pod, else local processes.
        workers: Workers that train each model in step.
        epochs: Passes over the training split.
        batch_size: Images a replica takes in one step; the global batch is this times the number of replicas.
        learning_rates: Steps of the learning rate, as SHARE:RATE pairs: from that share of the epochs on, that rate; or
            `cosine:RATE`: from that rate down to 0 along half a cosine. `warmup:SHARE` before either lets the rate rise
            from 0 in that share of the training.
        optimizer: What moves the weights: `adam`, `adamw` (Adam with `weight_decay`), or `sgd` (with momentum 0.9,
            after Nesterov).
        weight_decay: What each step takes from the weights of layers, times the learning rate; biases and
            normalisation keep theirs. For `adamw` and `sgd`.
        gradient_clip: The longest that the gradient, summed over all workers, may be (its L2 norm over all weights): a
            longer one is shortened to it; 0 for no limit.
        label_smoothing: Share of each label that is spread over all classes, from 0 to below 1.
        class_weights: How much the images of each class count in the loss: `equal`; `balanced`, each class as much as
            any other, however few images it has; or a JSON object, such as `{"cat": 2}`, where others count 1.
        weights: What all layers but the head begin with: `none`, random numbers; `imagenet`, downloaded, for backbones
            of keras.applications; or a path, s3:// or gs:// URI of an earlier run's Model artifact or of a .keras,
            .weights.h5 or .h5 file.
        initial_model: What all layers begin with: a path, s3:// or gs:// URI of an earlier run's Model artifact or of a
            .keras file; or `deployed`, the model that the service has now, for models of its architecture. Other
            classes get a new head. Empty for none.
        freeze_epochs: With either, epochs in which the head alone is trained, before all layers are.
        fine_tuning_rate: What the learning rate is multiplied by after freeze_epochs, when all layers are trained.
        seed: Decides initial weights, dropout, augmentation and the order of the images.
        augmentation: Random changes to the training images: `none`, `shift`, `shift_flip` (for photographs), or
            `photo`: crops of another size and shape, mirrored, in other light and colours.
        mixup: Mixes each training image with another one, and their labels alike: the alpha of Beta(alpha, alpha), from
            which the shares are drawn, such as 0.2; 0 for none.
        keep: Which epoch's weights become the model: the `best` by its validation (`select_by`; of equal ones the one
            with the lower loss, then the earlier), or the `last`.
        select_by: What epochs are compared by, on the validation images: `accuracy`, `macro_f1`, `balanced_accuracy`,
            `log_loss` or `top5`.
        patience: Epochs without a better one, in the same sense, after which the training ends early; 0 for never.
        image_cache_mb: Memory of each worker, in MB, in which decoded images of an encoded data set are kept: they are
            decoded once then, and not in every epoch. On GPUs raw images are kept, too, if all of a worker's fit.
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
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: Annotated[float, AfterValidator(_decay)] = Field(default=0.0, ge=0, lt=1, validate_default=True)
    gradient_clip: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: Annotated[str, AfterValidator(_class_weights)] = EQUAL
    weights: Annotated[str, AfterValidator(_weights)] = NONE
    initial_model: Annotated[str, AfterValidator(_initial_model)] = ""
    freeze_epochs: Annotated[int, AfterValidator(_freeze_epochs)] = Field(default=0, ge=0)
    fine_tuning_rate: float = Field(default=0.1, gt=0, le=1)
    seed: int = Field(ge=0, lt=2**31)
    augmentation: Annotated[str, AfterValidator(_known_augmentation)] = "none"
    mixup: float = Field(default=0.0, ge=0, le=10)
    keep: Literal["best", "last"] = "best"
    select_by: MeasureName = "accuracy"
    patience: int = Field(default=0, ge=0)
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

    @model_validator(mode="before")
    @classmethod
    def _settings_win(cls, values: Any) -> Any:
        try:
            settings = ModelSettings.parse(values["model_type"]).settings
        except (ValueError, KeyError, TypeError, AttributeError):  # the field's own check says why
            return values
        return {**values, **{name: value for name, value in settings.items() if name in SETTINGS}}

    @property
    def architecture(self) -> str:
        """The variant, or the import path of a user's function: `model_type` without its settings."""
        return ModelSettings.parse(self.model_type).architecture

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
        start: The weights that it begins with, which lie in its folder (`START_DIRECTORY`); None for none.
        gpus: How many GPUs the launcher gave each worker.
        shares_gpu: Whether it gave the same GPU to several.
    """

    model_config = ConfigDict(frozen=True)

    options: TrainOptions
    dataset: str
    directory: str
    run: str = ""
    start: StartedFrom | None = None
    gpus: int = 0
    shares_gpu: bool = False

    def identity(self) -> str:
        """What must be the same for a job to continue from another's checkpoints, as text."""
        identity = self.identity_of(self.options, self.dataset)
        return f"{identity} {self.start.sha256}" if self.start else identity

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
            lambda: check_model(options.architecture, manifest.image_shape),
            lambda: _check_class_weights(options, manifest),
            lambda: _check_measure(options, len(manifest.class_names)),
        ]
    )


def _check_shards(options: TrainOptions, shards: int) -> None:
    if shards % options.workers:
        raise InvalidInput(
            f"workers = {options.workers}: the data set has {shards} training shards, which is not a multiple; ingest "
            "it with the same number of workers"
        )


def _check_class_weights(options: TrainOptions, manifest: DatasetManifest) -> None:
    class_weights(options.class_weights, manifest.class_names, manifest.splits["train"].class_counts)


def _check_measure(options: TrainOptions, classes: int) -> None:
    if options.select_by == "top5" and classes < TOP_FROM_CLASSES:
        raise InvalidInput(f"select_by = 'top5': says little of {classes} classes; it takes {TOP_FROM_CLASSES} or more")
