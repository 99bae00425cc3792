"""The weights that a training begins with: the chief reads them, and gives them to all other workers.

Each file is read with Keras' safe mode: none can bring code along.
"""

import fcntl
import hashlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kfp_image_classification.components.contracts.model_card import StartedFrom
from kfp_image_classification.components.contracts.preprocessing import ImageShape
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.job_files import START_DIRECTORY
from kfp_image_classification.components.train.options import TrainingJob
from kfp_image_classification.components.train.weight_source import IMAGENET, MODEL_FILE, NONE
from kfp_image_classification.components.train.worker.backbones import KERAS_BACKBONES
from kfp_image_classification.components.train.worker.keras_home import MODELS
from kfp_image_classification.components.train.worker.models import build_model
from kfp_image_classification.components.train.worker.trained_part import split

# Without a byte for so long, a download is given up.
SILENT_SECONDS = 60.0

Weights = list[NDArray[np.float32]]


def begin_with(
    model: keras.Model, job: TrainingJob, is_chief: bool, sum_over_workers: Callable[[tf.Tensor], tf.Tensor]
) -> None:
    """Gives a model the weights that its training begins with.

    Args:
        model: As it was built, on every worker alike.
        job: Whose `start` says which weights.
        is_chief: Whether this worker reads them.
        sum_over_workers: Sums a tensor (float32 [n]) that each worker holds once; by it they get to the others.

    Raises:
        InvalidInput: When they cannot be had, or are those of another model.
    """
    assert job.start
    architecture = job.options.architecture
    taken = split(model, architecture)[0].weights if job.start.new_head else model.weights
    sizes = [int(np.prod(variable.shape)) for variable in taken]
    values = np.zeros(sum(sizes), np.float32)
    if is_chief:
        file = start_file(job)
        read = read_weights(file, job.start, architecture, model.input_shape[1:], model.output_shape[-1])
        values = np.concatenate([value.ravel() for value in read])
        print(f"begins with {len(values):,} weights of {_name(file, job.start)}", flush=True)
    # Only added up to zeros: each worker has the same bits in the end.
    total = sum_over_workers(tf.constant(values)).numpy()
    for variable, value in zip(taken, np.split(total, np.cumsum(sizes)[:-1]), strict=True):
        variable.assign(value.reshape(variable.shape))


def start_file(job: TrainingJob) -> Path:
    """The file of weights in a job's folder; those of ImageNet are downloaded to it, where they are not there yet.

    Raises:
        InvalidInput: When they cannot be downloaded.
    """
    folder = Path(job.directory, START_DIRECTORY)
    if job.start and job.start.source == IMAGENET:
        kept = folder / KERAS_BACKBONES[job.options.architecture].imagenet_file
        if not kept.exists():
            folder.mkdir(exist_ok=True)
            partial = kept.with_suffix(".partial")
            shutil.copyfile(imagenet_weights(job.options.architecture), partial)
            partial.replace(kept)
        return kept
    assert job.start
    return next(folder.glob(f"{job.start.sha256}-*"))


def imagenet_weights(architecture: str) -> Path:
    """Downloads the weights of ImageNet with keras.applications, unless they are in KERAS_HOME already.

    One process of a machine downloads; the others wait for it, and find the file. Keras compares its checksum.

    Raises:
        InvalidInput: When they cannot be downloaded.
    """
    backbone = KERAS_BACKBONES[architecture]
    folder = Path(os.environ["KERAS_HOME"], MODELS)
    try:
        with _alone(folder / ".lock"), _giving_up(SILENT_SECONDS):
            backbone.features(224, 224, IMAGENET)
    except Exception as error:  # Keras wraps those of the network in bare ones
        raise InvalidInput(
            f"weights = {IMAGENET!r}: those of {architecture} cannot be downloaded here ({_line(error)}); on a machine "
            f"that can, let keras.applications fetch them and bring {backbone.imagenet_file} here, either into "
            f"{folder.resolve()} or anywhere, and give its path as weights; or give weights = {NONE}"
        ) from None
    return folder / backbone.imagenet_file


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _giving_up(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def read_weights(file: Path, start: StartedFrom, architecture: str, image_shape: ImageShape, classes: int) -> Weights:
    """Reads a file, in the order of the weights of the model that they are for.

    Args:
        file: What ends in `.keras` is a whole model, or one without its head; everything else the latter's weights.
        start: Whether its head is wanted, too, and its names for messages.
        architecture: Of the model that they are for.
        image_shape: (height, width, channels) of the model's images.
        classes: How many the model has.

    Raises:
        InvalidInput: When the file is of something else.
    """
    with tf.device("CPU:0"):
        ours = build_model(architecture, image_shape, classes, "float32")
        wanted = split(ours, architecture)[0] if start.new_head else ours
        try:
            read = _models(file, architecture, image_shape, wanted, start.new_head)
        except Exception as error:  # a damaged file can fail anywhere, and a foreign one does
            raise InvalidInput(
                f"{start.parameter} = {start.source!r}: {_name(file, start)} cannot be read as weights of "
                f"{architecture} ({_line(error)})"
            ) from None
        for model in read:
            if fitting := _fitting(model.weights, wanted.weights):
                return fitting
    raise InvalidInput(
        f"{start.parameter} = {start.source!r}: its weights are not those of {architecture} for images of "
        f"{image_shape[0]} x {image_shape[1]} x {image_shape[2]}: {_difference(read[0].weights, wanted.weights)}"
    )


def _models(
    file: Path, architecture: str, image_shape: ImageShape, wanted: keras.Model, without_head: bool
) -> list[keras.Model]:
    """What a file may be, the likelier first."""
    if file.name.endswith(MODEL_FILE):
        read = keras.models.load_model(file, compile=False, safe_mode=True)
        if not without_head:
            return [read]
        try:
            return [split(read, architecture)[0], read]
        except InvalidInput:
            return [read]
    model = KERAS_BACKBONES[architecture].features(*image_shape[:2]) if architecture in KERAS_BACKBONES else wanted
    # Keras only warns of some weights that it does not find.
    model.set_weights([np.full_like(value, np.nan) for value in model.get_weights()])
    model.load_weights(file)
    if missing := [one.path for one in model.weights if np.isnan(one).any()]:
        raise ValueError(f"it has no {missing[0]}")
    return [model]


def _fitting(read: Sequence[keras.Variable], wanted: Sequence[keras.Variable]) -> Weights:
    """The values in the wanted shapes; none where they are others."""
    if len(read) != len(wanted) or not all(map(_fits, read, wanted)):
        return []
    return [np.asarray(one, np.float32).reshape(other.shape) for one, other in zip(read, wanted, strict=True)]


def _fits(read: keras.Variable, wanted: keras.Variable) -> bool:
    # A convolution with a group a channel has the same numbers, but not the same shape, as what is built for it here.
    turned = (*read.shape[:-2], *reversed(read.shape[-2:]))
    return read.shape == wanted.shape or (1 in read.shape[-2:] and turned == wanted.shape)


def _difference(read: Sequence[keras.Variable], wanted: Sequence[keras.Variable]) -> str:
    if len(read) != len(wanted):
        return f"it has {len(read)} of them, and {len(wanted)} are needed"
    other = next((one, its) for one, its in zip(read, wanted, strict=True) if not _fits(one, its))
    return f"one is {tuple(other[0].shape)}, and {other[1].path} is {tuple(other[1].shape)}"


def read_start(job: TrainingJob) -> StartedFrom | None:
    """What a job began with, for the model's card."""
    if not job.start or job.start.sha256:
        return job.start
    digest = hashlib.sha256(start_file(job).read_bytes()).hexdigest()
    return job.start.model_copy(update={"sha256": digest})


def _name(file: Path, start: StartedFrom) -> str:
    """A file's name as it was before it came into the job's folder."""
    return file.name.removeprefix(f"{start.sha256}-")


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
