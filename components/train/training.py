"""The training of one worker: all workers take the same steps, each on its own images.

Keras' own `fit` does not work with several workers under Keras 3 and MultiWorkerMirroredStrategy, so the loop is
written out here: many steps in one `tf.function` call, gradients summed over all workers in each step.

Nothing that decides the weights depends on when a run was interrupted: the images of a step, their augmentation and the
features that dropout drops follow from the seed and the step alone, and the rest is in the checkpoint.
"""

import contextlib
import hashlib
import math
import os
import time
from pathlib import Path

import keras
import tensorflow as tf

from components.dataset_manifest import Dataset
from components.errors import StageFailed
from components.train.callbacks import forget_epochs_after, training_callbacks
from components.train.checkpoints import Checkpoints, Position
from components.train.cluster import Cluster
from components.train.coordination import connect
from components.train.export import export_model, is_exported
from components.train.gradients import FusedAdam
from components.train.input_pipeline import steps_per_epoch, training_batches, validation_batches, worker_shards
from components.train.job_files import HISTORY_FILE, MODEL_DIRECTORY, PROGRESS_FILE
from components.train.learning_rate import LearningRateSteps
from components.train.models import MODELS
from components.train.options import TrainingJob, check_fit
from components.train.preemption import Preempted, PreemptionNotice
from components.train.steps import Pace, build_train_steps, build_validation
from components.train.worker_report import WorkerReport

VALIDATION_BATCH = 512
CHIEF_SECONDS = 120.0
# Well within the 30 seconds that Kubernetes gives a pod to go.
SAVE_SECONDS = 15.0


class NonFiniteLoss(StageFailed):
    """The loss became NaN or infinite: going on would only destroy the model."""


def train_model(
    job: TrainingJob, cluster: Cluster, report: WorkerReport, notice: PreemptionNotice
) -> tuple[object, ...]:
    """Trains one worker's part of a job; on the chief, exports the model in the end.

    Args:
        job: What to train.
        cluster: Who trains together, and which of them this process is.
        report: Filled with times and the checksum of the final weights, and written.
        notice: Whether this worker was told to go.

    Returns:
        What has to be kept until the process ends, the strategy first: its destruction can wait for lost workers.

    Raises:
        InvalidInput: When data set and options do not go together.
        StageFailed: When a shard is not whole.
        NonFiniteLoss: When the loss is not a finite number.
        Preempted: When a worker was told to go; the state is saved then.
        tf.errors.OpError: When another worker is lost.
    """
    options, directory = job.options, Path(job.directory)
    dataset = Dataset(job.dataset)
    check_fit(options, dataset.manifest)
    train_split, validation_split = dataset.manifest.splits["train"], dataset.manifest.splits["validation"]
    train_shards = worker_shards(train_split.shards, cluster.index, cluster.workers)
    validation_shards = worker_shards(validation_split.shards, cluster.index, cluster.workers)
    dataset.verify([*train_shards, *validation_shards])

    with report.phase("connect"):
        strategy = connect(cluster, options)
    local_replicas = strategy.num_replicas_in_sync // cluster.workers
    worker_batch = options.batch_size * local_replicas
    global_batch = worker_batch * cluster.workers
    steps = steps_per_epoch(train_split.shards, cluster.workers, worker_batch)
    print(
        f"worker {cluster.index} of {cluster.workers}: {len(train_shards)} of {len(train_split.shards)} shards, "
        f"{steps} steps an epoch, global batch {global_batch}",
        flush=True,
    )

    with report.phase("build"):
        keras.utils.set_random_seed(options.seed)
        with strategy.scope():
            model = MODELS[options.model_type](dataset.manifest.image_shape, len(dataset.manifest.class_names))
            optimizer = FusedAdam(options.gradient_dtype)
            optimizer.build(model.trainable_variables)
            optimizer.average_also(model.non_trainable_variables)
            model.compile(optimizer=optimizer)
        checkpoints = Checkpoints(directory / "checkpoints", model, optimizer)
        position = checkpoints.restore() or Position(0, (0.0, 0.0))
        _tell_resumption(position, directory)
        forget_epochs_after(directory / HISTORY_FILE, position.step // steps)
        # Each worker drops other features than its peers, and after a restart not those it dropped before.
        _place_random_layers(model, [options.seed + cluster.index, position.step])

    train_steps = build_train_steps(strategy, model, optimizer, global_batch)
    validate = build_validation(strategy, model)
    batches = iter(
        strategy.distribute_datasets_from_function(
            lambda context: training_batches(
                dataset,
                train_shards,
                context.get_per_replica_batch_size(options.batch_size * strategy.num_replicas_in_sync),
                steps * local_replicas,
                options.seed,
                position.step * local_replicas,
                options.augmentation,
            )
        )
    )
    schedule = LearningRateSteps.parse(options.learning_rates)
    callbacks = keras.callbacks.CallbackList(
        training_callbacks(directory, schedule, options.epochs, cluster.is_chief), model=model
    )
    callbacks.on_train_begin()
    notice.training_begins()
    pace = Pace(cluster.workers)
    last_saved = time.monotonic()
    while position.step < options.epochs * steps:
        epoch = position.step // steps
        epoch_end = (epoch + 1) * steps
        callbacks.on_epoch_begin(epoch)
        epoch_started, first_step = time.monotonic(), position.step
        with report.phase("train"):
            while position.step < epoch_end:
                count = pace.steps(epoch_end - position.step)
                started = time.monotonic()
                carried = tf.constant([float(notice.given), pace.last_seconds])
                loss, correct, told_to_go, seconds = train_steps(batches, tf.constant(count), carried).numpy().tolist()
                pace.called(count, time.monotonic() - started, seconds)
                position = Position(position.step + count, (position.totals[0] + loss, position.totals[1] + correct))
                _check_finite(loss, position.step, optimizer)
                if cluster.is_chief:
                    _note_progress(position, directory)
                    due = time.monotonic() - last_saved > options.checkpoint_seconds
                    if position.step < epoch_end and (told_to_go or due):
                        checkpoints.save(position)
                        last_saved = time.monotonic()
                if told_to_go:
                    break
            if position.step < epoch_end:
                checkpoints.wait_for(position, SAVE_SECONDS)
                raise Preempted(f"told to go; saved after step {position.step}")
        speed = (position.step - first_step) * global_batch / (time.monotonic() - epoch_started)
        with report.phase("validate"):
            val_loss, val_accuracy = validate(validation_batches(dataset, validation_shards, VALIDATION_BATCH))
        loss, accuracy = (total / (steps * global_batch) for total in position.totals)
        scores = {"loss": loss, "accuracy": accuracy, "val_loss": val_loss, "val_accuracy": val_accuracy}
        callbacks.on_epoch_end(epoch, {**scores, "images_per_second": speed})
        position = Position(position.step, (0.0, 0.0))
        last_epoch = epoch + 1 == options.epochs
        due = time.monotonic() - last_saved > options.checkpoint_seconds
        if cluster.is_chief and (last_epoch or told_to_go or due):
            with report.phase("checkpoint"):
                checkpoints.save(position)
            last_saved = time.monotonic()
        if told_to_go:
            checkpoints.wait_for(position, SAVE_SECONDS)
            raise Preempted(f"told to go; saved after step {position.step}, the end of epoch {epoch + 1}")
    callbacks.on_train_end()

    report.weights_sha256 = _weights_sha256(model)
    if cluster.is_chief and not is_exported(directory / MODEL_DIRECTORY):
        with report.phase("export"):
            export_model(model, job, dataset, directory / MODEL_DIRECTORY)
    report.write(job.directory)
    if not cluster.is_chief:
        _wait_for_chief(job)
    return strategy, batches


def _tell_resumption(position: Position, directory: Path) -> None:
    if position.step:
        reached = position.step
        with contextlib.suppress(OSError, ValueError):
            reached = int((directory / PROGRESS_FILE).read_text())
        repeated = max(0, reached - position.step)
        print(f"resumed after step {position.step}; {repeated} steps are repeated", flush=True)


def _note_progress(position: Position, directory: Path) -> None:
    # Only to tell how much a restart repeats: not worth failing for.
    with contextlib.suppress(OSError):
        (directory / PROGRESS_FILE).write_text(str(position.step))


def _check_finite(loss: float, step: int, optimizer: keras.optimizers.Optimizer) -> None:
    if not math.isfinite(loss):
        rate = float(optimizer.learning_rate.numpy())
        raise NonFiniteLoss(f"the loss is {loss} by step {step} at learning rate {rate:g}; lower learning_rates")


def _place_random_layers(model: keras.Model, state: list[int]) -> None:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _place_random_layers(layer, state)
        elif hasattr(layer, "seed_generator"):
            layer.seed_generator.state.assign(state)


def _wait_for_chief(job: TrainingJob) -> None:
    """Keeps this worker alive until the chief has written its report, the last thing it does.

    A worker that left at once could take its part of the last sum with it, which the chief may not have fetched yet. A
    barrier in TensorFlow would have the same flaw: whoever leaves it first can leave the other waiting, for 30 seconds.
    """
    # TensorFlow's alarm about a chief that is done and gone is of no use to anybody.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    report = WorkerReport.path(job.directory, 0)
    deadline = time.monotonic() + CHIEF_SECONDS
    while not report.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def _weights_sha256(model: keras.Model) -> str:
    digest = hashlib.sha256()
    for weights in model.get_weights():
        digest.update(weights.tobytes())
    return digest.hexdigest()
