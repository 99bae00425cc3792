"""What workers compute together: training steps, validation, and sums over all of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfp_image_classification.components.contracts.class_means import balanced_accuracy, macro_f1
from kfp_image_classification.components.contracts.measures import TOP, MeasureName
from kfp_image_classification.components.contracts.preprocessing import model_input
from kfp_image_classification.components.train.worker.batch_groups import BatchGroups, GroupSteps
from kfp_image_classification.components.train.worker.compiled_step import (
    Step,
    compiled_part,
    refusal,
    waits_for_replicas,
)
from kfp_image_classification.components.train.worker.losses import Objective
from kfp_image_classification.components.train.worker.trained_part import TrainedPart, whole

# About a second of steps a call: long enough to hide a call's cost, short enough to notice a preemption in time.
SECONDS_PER_CALL = 1.0
FIRST_CALLS_STEPS = 10
MOST_STEPS = 500
BY_CLASS = ("macro_f1", "balanced_accuracy")

TrainSteps = Callable[[Any, tf.Tensor, tf.Tensor], tf.Tensor]
Validate = Callable[[Iterable[Any]], dict[str, float]]
SumOverWorkers = Callable[[tf.Tensor], tf.Tensor]


class Pace:
    """How many steps the next call takes; the same number on every worker, as it follows from their common times.

    Batches that come together are taken together, if they can be.
    """

    def __init__(self, workers: int, together: int = 1) -> None:
        self._workers, self._together = workers, together
        self._calls: list[tuple[int, float]] = []
        self._steps = FIRST_CALLS_STEPS

    def steps(self, left: int) -> int:
        return min(max(1, self._steps // self._together) * self._together, left)

    @property
    def last_seconds(self) -> float:
        """This worker's time for the last call, to be summed over all with the next."""
        return self._calls[-1][1] if self._calls else 0.0

    def called(self, steps: int, seconds: float, all_workers_last_seconds: float) -> None:
        # The first call's time is that of tracing, so the second call's time is the first that counts.
        if len(self._calls) >= 2 and all_workers_last_seconds > 0:
            per_step = all_workers_last_seconds / self._workers / self._calls[-1][0]
            self._steps = max(1, min(MOST_STEPS, int(SECONDS_PER_CALL / per_step)))
        self._calls.append((steps, seconds))


def build_train_steps(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    objective: Objective,
    global_batch: int,
    sum_over_workers: SumOverWorkers,
    with_xla: bool = False,
    part: TrainedPart | None = None,
    first_step: int = 0,
    together: int = 0,
) -> TrainSteps:
    """Builds the function that takes a number of steps.

    Args:
        strategy: Under which the model was built.
        model: What is trained.
        optimizer: What sums the gradients, and moves the weights.
        objective: What is minimised.
        global_batch: Images of a step, of all workers together.
        sum_over_workers: Sums a tensor (float32 [n]) that each worker holds once.
        with_xla: Whether XLA is to compile them, if it can; where it cannot, the log says why.
        part: What of the model is trained; None for all of it.
        first_step: Steps that were taken before the optimizer's first one.
        together: How many batches are handed over at once, to a replica that has no others; 0 for one by one.

    Returns:
        A function of the batches (where several come together, `BatchGroups`), the number of steps (int32), and
        anything to be summed over the workers on the way (float32 [n]). It returns the sums over all workers: of the
        losses, of the correct images, and of those.
    """
    replicas = strategy.num_replicas_in_sync
    trained = part or whole(model)

    def gradients_of(pixels: tf.Tensor, labels: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group if objective.mixup else 0
        batch = objective.mixed(model_input(pixels), labels, optimizer.iterations.value + first_step, replica)
        with tf.GradientTape() as tape:
            logits = _in_float32(trained.logits(batch.images))
            losses = objective.losses(logits, batch)
            # Gradients are summed over the replicas, so each counts its part of the global batch.
            loss = tf.reduce_sum(losses) / global_batch + sum(trained.losses()) / replicas
        gradients = tape.gradient(loss, trained.variables)
        return gradients, tf.stack([tf.reduce_sum(losses), _correct(logits, labels)])

    def step_with(gradients_of: Step) -> Step:
        def replica_step(pixels: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            gradients, results = gradients_of(pixels, labels)
            optimizer.apply(gradients, trained.variables)
            return results

        return replica_step

    def taken(step: Step) -> Any:
        return GroupSteps(strategy, step, together) if together else step

    step = step_with(gradients_of)
    steps = taken(step)
    if with_xla and replicas > 1 and waits_for_replicas(model):
        print("xla: the model is trained without, as its synchronized layers wait for the other replicas", flush=True)
    elif with_xla:
        shape = [global_batch // replicas, *model.input_shape[1:]]
        black = tf.zeros(shape, tf.uint8), tf.zeros(shape[:1], tf.int64)
        # Where there are other replicas, or XLA does not compile the whole, only what is before the sum.
        before_sum = compiled_part(gradients_of)
        ways: list[tuple[Any, Callable[[], object]]] = []
        if together:
            whole_group = GroupSteps(strategy, step, together, with_xla=True)
            group = tf.stack([black[0]] * together), tf.stack([black[1]] * together)
            ways.append((whole_group, lambda: whole_group.with_all(group)))
        ways.append((taken(step_with(before_sum)), lambda: strategy.run(before_sum, args=black)))
        steps = _compiled([*model.variables, *optimizer.variables], ways) or steps
    return _in_groups(steps, sum_over_workers) if together else _one_by_one(strategy, steps, sum_over_workers)


def _one_by_one(strategy: tf.distribute.Strategy, step: Step, sum_over_workers: SumOverWorkers) -> TrainSteps:
    @tf.function
    def train_steps(batches: Iterator[Any], count: tf.Tensor, carried: tf.Tensor) -> tf.Tensor:
        totals = tf.zeros(2)
        for _ in tf.range(count):
            results = strategy.run(step, args=next(batches))
            totals += tf.add_n(strategy.experimental_local_results(results))
        return sum_over_workers(tf.concat([totals, carried], 0))

    return train_steps


def _in_groups(steps: GroupSteps, sum_over_workers: SumOverWorkers) -> TrainSteps:
    def train_steps(batches: BatchGroups, count: tf.Tensor, carried: tf.Tensor) -> tf.Tensor:
        totals = tf.zeros(2)
        for group, index in batches.take(int(count)):
            totals += steps.with_all(group) if index is None else steps.with_one(group, index)
        return sum_over_workers(tf.concat([totals, carried], 0))

    return train_steps


def _compiled(variables: Sequence[keras.Variable], ways: Sequence[tuple[Any, Callable[[], object]]]) -> Any:
    """The first of some steps that XLA compiles, each with its trial; None where there is none."""
    why = ""
    for step, trial in ways:
        why = refusal(variables, trial)
        if not why:
            return step
    print(f"xla: the model is trained without, as XLA does not compile it: {why}", flush=True)
    return None


def build_validation(model: keras.Model, select_by: MeasureName, sum_over_workers: SumOverWorkers) -> Validate:
    """Builds the function that measures a model by all workers' validation images.

    Args:
        model: What is measured.
        select_by: What is measured beside loss and accuracy.
        sum_over_workers: Sums a tensor (float32 [n]) that each worker holds once.

    Returns:
        A function of batches, which returns `val_loss`, `val_accuracy` and the other measure, if it is one, likewise.
    """
    classes = model.output_shape[-1]
    numbers = 3 + (3 * classes if select_by in BY_CLASS else int(select_by == "top5"))

    @tf.function(reduce_retracing=True)
    def measure(pixels: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        logits = _in_float32(model(model_input(pixels), training=False))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        totals = [tf.reduce_sum(losses), _correct(logits, labels), tf.cast(tf.size(labels), tf.float32)]
        if select_by == "top5":
            among = tf.math.in_top_k(labels, logits, min(TOP, classes))
            return tf.stack([*totals, tf.reduce_sum(tf.cast(among, tf.float32))])
        if select_by in BY_CLASS:
            actual, predicted = (tf.one_hot(one, classes) for one in (labels, tf.argmax(logits, axis=-1)))
            counts = [tf.reduce_sum(of, axis=0) for of in (actual * predicted, actual, predicted)]
            return tf.concat([tf.stack(totals), *counts], 0)
        return tf.stack(totals)

    def validate(batches: Iterable[Any]) -> dict[str, float]:
        own = tf.zeros(numbers)
        for pixels, labels in batches:
            own += measure(pixels, labels)
        loss, correct, images, *others = sum_over_workers(own).numpy()
        scores = {"val_loss": float(loss / images), "val_accuracy": float(correct / images)}
        if select_by == "top5":
            scores["val_top5"] = float(others[0] / images)
        if select_by in BY_CLASS:
            hits, actual, predicted = np.split(np.array(others), 3)
            of_classes = {
                "macro_f1": lambda: macro_f1(hits, actual, predicted),
                "balanced_accuracy": lambda: balanced_accuracy(hits, actual),
            }
            scores[f"val_{select_by}"] = float(of_classes[select_by]())
        return scores

    return validate


def _in_float32(logits: tf.Tensor) -> tf.Tensor:
    # Also from layers that compute in bfloat16: a loss needs more digits.
    return tf.cast(logits, tf.float32)


def _correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(tf.argmax(logits, axis=-1) == labels, tf.float32))


@tf.function(reduce_retracing=True)
def collective_sum(strategy: tf.distribute.Strategy, value: tf.Tensor) -> tf.Tensor:
    """Sums a value that each worker holds once, through TensorFlow; waits for all of them."""
    local_replicas = len(strategy.extended.worker_devices)

    def replica_sum(own: tf.Tensor) -> tf.Tensor:
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own / local_replicas)

    return strategy.experimental_local_results(strategy.run(replica_sum, args=(value,)))[0]
