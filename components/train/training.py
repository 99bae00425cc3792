"""The training loop: all workers take the same steps, each on its own images.

Keras' own `fit` does not work with several workers under Keras 3 and MultiWorkerMirroredStrategy, so the loop is
written out here: many steps in one `tf.function` call, gradients summed over all workers in each step.
"""

import hashlib
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from components.dataset_manifest import Dataset
from components.errors import StageFailed
from components.preprocessing import model_input
from components.train.callbacks import forget_epochs_after, training_callbacks
from components.train.checkpoints import Checkpoints
from components.train.cluster import Cluster
from components.train.export import export_model
from components.train.input_pipeline import steps_per_epoch, training_batches, validation_batches, worker_shards
from components.train.job_files import HISTORY_FILE, MODEL_DIRECTORY
from components.train.learning_rate import LearningRateSteps
from components.train.models import MODELS
from components.train.options import TrainingJob, check_fit
from components.train.worker_report import WorkerReport

# Long enough to hide the cost of a call, short enough to show progress.
MAX_STEPS_PER_CALL = 100
CHECKPOINT_SECONDS = 10.0
VALIDATION_BATCH = 512
CHIEF_SECONDS = 120.0

TrainSteps = Callable[[object, tf.Tensor], tf.Tensor]


class NonFiniteLoss(StageFailed):
    """The loss became NaN or infinite: going on would only destroy the model."""


def train_model(job: TrainingJob, cluster: Cluster, report: WorkerReport) -> tuple[object, ...]:
    """Trains one worker's part of a job; on the chief, exports the model in the end.

    Args:
        job: What to train.
        cluster: Who trains together, and which of them this process is.
        report: Filled with times and the checksum of the final weights, and written.

    Returns:
        What has to be kept until the process ends, the strategy first: its destruction can wait for lost workers.

    Raises:
        InvalidInput: When data set and options do not go together.
        StageFailed: When a shard is not whole.
        NonFiniteLoss: When the loss is not a finite number.
        tf.errors.OpError: When another worker is lost.
    """
    options = job.options
    dataset = Dataset(job.dataset)
    check_fit(options, dataset.manifest)
    train_split, validation_split = dataset.manifest.splits["train"], dataset.manifest.splits["validation"]
    train_shards = worker_shards(train_split.shards, cluster.index, cluster.workers)
    validation_shards = worker_shards(validation_split.shards, cluster.index, cluster.workers)
    dataset.verify([*train_shards, *validation_shards])

    with report.phase("connect"):
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    local_replicas = strategy.num_replicas_in_sync // cluster.workers
    worker_batch = options.batch_size * local_replicas
    steps = steps_per_epoch(train_split.shards, cluster.workers, worker_batch)
    print(
        f"worker {cluster.index} of {cluster.workers}: {len(train_shards)} of {len(train_split.shards)} shards, "
        f"{steps} steps an epoch, global batch {worker_batch * cluster.workers}",
        flush=True,
    )

    with report.phase("build"):
        keras.utils.set_random_seed(options.seed)
        with strategy.scope():
            model = MODELS[options.model_type](dataset.manifest.image_shape, len(dataset.manifest.class_names))
            optimizer = keras.optimizers.Adam()
            optimizer.build(model.trainable_variables)
            model.compile(optimizer=optimizer)
            checkpoints = Checkpoints(Path(job.directory, "checkpoints"), model, optimizer)
        step = checkpoints.restore()
        if step:
            print(f"resumed after step {step}, epoch {step // steps + 1}", flush=True)
            forget_epochs_after(Path(job.directory, HISTORY_FILE), step // steps)
        # Each worker drops other features than its peers, and after a restart not those it dropped before.
        _place_random_layers(model, [options.seed + cluster.index, step])

    train_steps = _train_steps(strategy, model, optimizer, worker_batch * cluster.workers)
    validate = _validation(strategy, model)
    batches = iter(
        strategy.distribute_datasets_from_function(
            lambda context: training_batches(
                dataset,
                train_shards,
                context.get_per_replica_batch_size(options.batch_size * strategy.num_replicas_in_sync),
                steps * local_replicas,
                options.seed,
                step * local_replicas,
            )
        )
    )
    callbacks = keras.callbacks.CallbackList(
        training_callbacks(
            Path(job.directory),
            LearningRateSteps.parse(options.learning_rates),
            options.epochs,
            steps * worker_batch * cluster.workers,
            cluster.is_chief,
        ),
        model=model,
    )
    callbacks.on_train_begin()
    last_saved = time.monotonic()
    while step < options.epochs * steps:
        epoch = step // steps
        callbacks.on_epoch_begin(epoch)
        with report.phase("train"):
            images = 0
            totals = tf.zeros(2)
            while step < (epoch + 1) * steps:
                count = min(MAX_STEPS_PER_CALL, (epoch + 1) * steps - step)
                totals += train_steps(batches, tf.constant(count))
                step += count
                images += count * worker_batch * cluster.workers
                _check_finite(totals, step, optimizer)
        with report.phase("validate"):
            val_loss, val_accuracy = validate(validation_batches(dataset, validation_shards, VALIDATION_BATCH))
        loss, accuracy = (float(total) / images for total in totals)
        callbacks.on_epoch_end(
            epoch, {"loss": loss, "accuracy": accuracy, "val_loss": val_loss, "val_accuracy": val_accuracy}
        )
        last_epoch = epoch + 1 == options.epochs
        if cluster.is_chief and (last_epoch or time.monotonic() - last_saved > CHECKPOINT_SECONDS):
            with report.phase("checkpoint"):
                checkpoints.save(step)
            last_saved = time.monotonic()
    callbacks.on_train_end()

    report.weights_sha256 = _weights_sha256(model)
    if cluster.is_chief:
        with report.phase("export"):
            export_model(model, job, dataset, Path(job.directory, MODEL_DIRECTORY))
    report.write(job.directory)
    if not cluster.is_chief:
        _wait_for_chief(job)
    return strategy, batches


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


def _train_steps(
    strategy: tf.distribute.Strategy, model: keras.Model, optimizer: keras.optimizers.Optimizer, global_batch: int
) -> TrainSteps:
    """Builds the function that takes a number of steps and returns [sum of losses, correct images] over all workers."""
    replicas = strategy.num_replicas_in_sync

    def replica_step(pixels: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(model_input(pixels), training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            # Gradients are summed over the replicas, so each counts its part of the global batch.
            loss = tf.reduce_sum(losses) / global_batch + sum(model.losses) / replicas
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return tf.stack([tf.reduce_sum(losses), _correct(logits, labels)])

    @tf.function
    def train_steps(batches: object, count: tf.Tensor) -> tf.Tensor:
        totals = tf.zeros(2)
        for _ in tf.range(count):
            results = strategy.run(replica_step, args=next(batches))
            totals += tf.add_n(strategy.experimental_local_results(results))
        return _sum_over_workers(strategy, totals)

    return train_steps


def _validation(
    strategy: tf.distribute.Strategy, model: keras.Model
) -> Callable[[tf.data.Dataset], tuple[float, float]]:
    """Builds the function that measures mean loss and accuracy over all workers' validation images."""

    @tf.function(reduce_retracing=True)
    def measure(pixels: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        logits = model(model_input(pixels), training=False)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return tf.stack([tf.reduce_sum(losses), _correct(logits, labels), tf.cast(tf.size(labels), tf.float32)])

    def validate(batches: tf.data.Dataset) -> tuple[float, float]:
        own = tf.zeros(3)
        for pixels, labels in batches:
            own += measure(pixels, labels)
        loss, correct, images = _sum_over_workers(strategy, own).numpy()
        return float(loss / images), float(correct / images)

    return validate


def _correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(tf.argmax(logits, axis=-1) == labels, tf.float32))


@tf.function(reduce_retracing=True)
def _sum_over_workers(strategy: tf.distribute.Strategy, value: tf.Tensor) -> tf.Tensor:
    """Sums a value that each worker holds once; waits for all of them."""
    local_replicas = len(strategy.extended.worker_devices)

    def replica_sum(own: tf.Tensor) -> tf.Tensor:
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own / local_replicas)

    return strategy.experimental_local_results(strategy.run(replica_sum, args=(value,)))[0]


def _check_finite(totals: tf.Tensor, step: int, optimizer: keras.optimizers.Optimizer) -> None:
    if not math.isfinite(float(totals[0])):
        rate = float(optimizer.learning_rate.numpy())
        raise NonFiniteLoss(
            f"the loss is {float(totals[0])} by step {step} at learning rate {rate:g}; lower learning_rates"
        )


def _place_random_layers(model: keras.Model, state: list[int]) -> None:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _place_random_layers(layer, state)
        elif hasattr(layer, "seed_generator"):
            layer.seed_generator.state.assign(state)


def _weights_sha256(model: keras.Model) -> str:
    digest = hashlib.sha256()
    for weights in model.get_weights():
        digest.update(weights.tobytes())
    return digest.hexdigest()
