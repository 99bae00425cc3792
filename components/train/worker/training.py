"""The training of one worker: all workers take the same steps, each on its own images.

Keras' own `fit` does not work with several workers under Keras 3 and MultiWorkerMirroredStrategy, so the loop is
written out here: many steps in one `tf.function` call, gradients summed over all workers in each step.

Nothing that decides the weights depends on when a run was interrupted: the images of a step, their augmentation and the
features that dropout drops follow from the seed and the step alone, and the rest is in the checkpoint.
"""

import contextlib
import gc
import hashlib
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kfp_image_classification.components.contracts.dataset_manifest import Dataset, Shard
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed
from kfp_image_classification.components.step.whole_file import write_whole
from kfp_image_classification.components.train.attempts import OwnAttempt
from kfp_image_classification.components.train.class_weights import class_weights
from kfp_image_classification.components.train.history import forget_epochs_after
from kfp_image_classification.components.train.job_files import HISTORY_FILE, MODEL_DIRECTORY, PROGRESS_FILE
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions, check_fit
from kfp_image_classification.components.train.worker.batch_groups import BatchGroups, batches_together
from kfp_image_classification.components.train.worker.best_epoch import BestEpoch
from kfp_image_classification.components.train.worker.checkpoints import Checkpoints, Position, TimedCheckpoints
from kfp_image_classification.components.train.worker.compiled_step import is_wanted
from kfp_image_classification.components.train.worker.coordination import PeersUnreachable, answers, connect
from kfp_image_classification.components.train.worker.devices import ComputeDevices, find_devices
from kfp_image_classification.components.train.worker.epoch_log import EpochLog
from kfp_image_classification.components.train.worker.export import check_export, export_model, is_exported
from kfp_image_classification.components.train.worker.initial_weights import begin_with
from kfp_image_classification.components.train.worker.input_pipeline import (
    VALIDATION_PART,
    WHOLE_SHARE_BYTES,
    ValidationBatches,
    steps_per_epoch,
    training_batches,
    worker_shards,
)
from kfp_image_classification.components.train.worker.losses import Objective
from kfp_image_classification.components.train.worker.lost_peers import leave_when_a_peer_is_lost
from kfp_image_classification.components.train.worker.models import build_model
from kfp_image_classification.components.train.worker.phase_times import PhaseTimes
from kfp_image_classification.components.train.worker.phases import Phase, phase_at, plan_phases, rates_of
from kfp_image_classification.components.train.worker.preemption import Preempted, PreemptionNotice
from kfp_image_classification.components.train.worker.steps import (
    Pace,
    SumOverWorkers,
    build_train_steps,
    build_validation,
    collective_sum,
)
from kfp_image_classification.components.train.worker.stuck_watch import StuckWatch
from kfp_image_classification.components.train.worker.tensor_exchange import TensorExchange, uses_sockets
from kfp_image_classification.components.train.worker.tf_config import Cluster
from kfp_image_classification.components.train.worker.worker_report import WorkerReport

VALIDATION_BATCH = 512
# How Keras names what decides the draws of a layer.
RANDOM_STATE = "seed_generator_state"
# Ahead of the step that computes.
BATCHES_ON_DEVICE = 2
# A network file system takes its time to show here what another worker has written.
VISIBLE_SECONDS = 30.0
CHIEF_POLL_SECONDS = 0.2
# Well within the 30 seconds that Kubernetes gives a pod to go.
SAVE_SECONDS = 15.0


class NonFiniteLoss(StageFailed):
    """The loss became NaN or infinite: going on would only destroy the model."""


def train_model(
    job: TrainingJob, cluster: Cluster, times: PhaseTimes, notice: PreemptionNotice, attempt: OwnAttempt | None
) -> tuple[object, ...]:
    """Trains one worker's part of a job; on the chief, exports the model in the end.

    Args:
        job: What to train.
        cluster: Who trains together, and which of them this process is.
        times: Told which phase begins.
        notice: Whether this worker was told to go.
        attempt: The job's attempt; the chief alone has one.

    Returns:
        What has to be kept until the process ends, the strategy first: its destruction can wait for lost workers.

    Raises:
        InvalidInput: When data set and options do not go together.
        StageFailed: When a shard is not whole.
        NonFiniteLoss: When the loss is not a finite number.
        Preempted: When a worker was told to go; the state is saved then.
        PeersUnreachable: When not all workers come together, or the chief is lost at the end.
        CheckpointUnreadable: When this worker cannot restore what the chief has restored.
        Superseded: When another attempt owns the job's folder.
        ExchangeFailed: When another worker is lost, or they do not come together.
        tf.errors.OpError: When TensorFlow finds that another worker is lost.
    """
    times.enter("data")
    share = _Share.of(job, cluster)
    devices = find_devices(job)
    # Nobody waits for a worker that trains alone.
    watch = StuckWatch(job.options.stuck_seconds if cluster.workers > 1 else math.inf)
    report = WorkerReport(index=cluster.index)
    times.enter("connect")
    report.reached(job.directory, "joining")
    with_sockets = uses_sockets(job.options.exchange, cluster.workers, devices)
    strategy = connect(cluster, job.options, watch, devices, with_sockets)
    report.reached(job.directory, "joined")
    size = _Size.of(job, cluster, share, strategy)
    print(
        f"worker {cluster.index} of {cluster.workers}: {len(share.train)} of {share.all_train} shards, "
        f"{size.epoch_steps} steps an epoch, global batch {size.global_batch}",
        flush=True,
    )
    with_xla = is_wanted(job.options.xla, devices.gpus)
    print(f"worker {cluster.index} computes on {devices.words}{', with XLA' if with_xla else ''}", flush=True)
    progress = _Progress(times, watch, attempt)
    progress.enter("build")
    try:
        training = _Training(job, cluster, share, size, strategy, progress, devices, with_sockets)
        if attempt and attempt.number == 1:  # a restart goes on, whatever room there is
            check_export(training.model, Path(job.directory))
        training.run(notice)
    except tf.errors.OpError:
        if share.dataset.refused:  # a shard, while the input was read
            raise share.dataset.refused from None
        raise

    directory = Path(job.directory)
    progress.enter("export")
    weights_sha256 = _weights_sha256(training.model)
    if attempt and not is_exported(directory / MODEL_DIRECTORY):
        export_model(training.model, job, share.dataset, directory / MODEL_DIRECTORY, attempt.check)
    progress.tell()
    report.seconds, report.weights_sha256 = times.seconds(), weights_sha256
    if cluster.is_chief:
        watch.rests()
        _wait_for_others(job, cluster)
        watch.gets_on("export")
    report.write(job.directory)
    watch.rests()
    if not cluster.is_chief:
        _wait_for_chief(job, cluster)
    return strategy, training


@dataclass(frozen=True)
class _Progress:
    """All that has to know what this worker does at the moment."""

    times: PhaseTimes
    watch: StuckWatch
    attempt: OwnAttempt | None

    def enter(self, phase: str) -> None:
        self.times.enter(phase)
        self.watch.gets_on(phase)

    def tell(self, **news: Any) -> None:
        """Writes down how far the attempt is; on the chief alone."""
        if self.attempt:
            self.attempt.tell(told=time.time(), seconds=self.times.seconds(), **news)


@dataclass(frozen=True)
class _Share:
    """What one worker reads of the data set.

    Attributes:
        dataset: The whole.
        train: This worker's training shards.
        validation: This worker's validation shards.
    """

    dataset: Dataset
    train: Sequence[Shard]
    validation: Sequence[Shard]

    @classmethod
    def of(cls, job: TrainingJob, cluster: Cluster) -> "_Share":
        """Finds a worker's share; its shards' checksums are checked as they are read.

        Raises:
            InvalidInput: When data set and options do not go together.
            StageFailed: When a shard is missing, or has another size.
        """
        dataset = Dataset(job.dataset)
        check_fit(job.options, dataset.manifest)
        train, validation = (
            worker_shards(dataset.manifest.splits[name].shards, cluster.index, cluster.workers)
            for name in ("train", "validation")
        )
        dataset.check_sizes([*train, *validation])
        return cls(dataset, train, validation)

    @property
    def all_train(self) -> int:
        return len(self.dataset.manifest.splits["train"].shards)


@dataclass(frozen=True)
class _Size:
    """How the work is divided.

    Attributes:
        epoch_steps: Steps of an epoch, the same for all workers.
        global_batch: Images of a step, of all workers together.
        local_replicas: Devices of this worker.
    """

    epoch_steps: int
    global_batch: int
    local_replicas: int

    @classmethod
    def of(cls, job: TrainingJob, cluster: Cluster, share: _Share, strategy: tf.distribute.Strategy) -> "_Size":
        local_replicas = strategy.num_replicas_in_sync // cluster.workers
        worker_batch = job.options.batch_size * local_replicas
        shards = share.dataset.manifest.splits["train"].shards
        epoch_steps = steps_per_epoch(shards, cluster.workers, worker_batch)
        if not epoch_steps:
            raise InvalidInput(
                f"batch_size = {job.options.batch_size}: with {local_replicas} GPUs a worker takes {worker_batch} "
                "images in a step, more than its share of the training images; use less, or fewer workers"
            )
        return cls(
            epoch_steps=epoch_steps,
            global_batch=worker_batch * cluster.workers,
            local_replicas=local_replicas,
        )


class _Training:
    """Model, position and everything that moves them on, in one worker."""

    def __init__(
        self,
        job: TrainingJob,
        cluster: Cluster,
        share: _Share,
        size: _Size,
        strategy: tf.distribute.Strategy,
        progress: _Progress,
        devices: ComputeDevices,
        with_sockets: bool,
    ) -> None:
        """Builds the model, or restores it from the newest checkpoint."""
        self._options, self._directory = job.options, Path(job.directory)
        self._cluster, self._share, self._size, self._progress = cluster, share, size, progress
        self._devices = devices
        keras.utils.set_random_seed(self._options.seed)
        manifest = share.dataset.manifest
        self._frozen_epochs = self._options.freeze_epochs if job.start else 0
        frozen_steps = self._frozen_epochs * size.epoch_steps
        self._rates = rates_of(self._options, size.epoch_steps, frozen_steps)
        with strategy.scope():
            self.model = build_model(
                self._options.architecture, manifest.image_shape, len(manifest.class_names), self._options.compute_dtype
            )
            self._phases = plan_phases(self.model, self._options, self._rates, frozen_steps)
        check = progress.attempt.check if progress.attempt else lambda: None
        self._best = BestEpoch(self.model, self._options.select_by, keeps_weights=self._options.keep == "best")
        optimizers = [phase.optimizer for phase in self._phases]
        checkpoints = Checkpoints(self._directory / "checkpoints", self.model, optimizers, self._best, check)
        self._position, attempt = _restored(checkpoints, strategy, cluster, progress.attempt)
        sum_over_workers: SumOverWorkers = partial(collective_sum, strategy)
        if job.start and not self._position.step:
            begin_with(self.model, job, cluster.is_chief, sum_over_workers)
        self._checkpoints = TimedCheckpoints(checkpoints, self._options.checkpoint_seconds, cluster.is_chief)
        _tell_resumption(self._position, self._directory)
        if cluster.is_chief:
            check()
            checkpoints.remove_partial()
            forget_epochs_after(self._directory / HISTORY_FILE, self._position.step // size.epoch_steps)
            progress.tell(first_step=self._position.step, step=self._position.step)
        self._exchange: TensorExchange | None = None
        if with_sockets:
            progress.enter("connect")
            self._exchange = TensorExchange.join(job, cluster, attempt, optimizers[-1].summed_shapes)
            progress.enter("build")
            progress.watch.lets_sums_speak_first()
            leave_when_a_peer_is_lost(cluster.workers, self._options.hang_seconds, progress.watch)
            for optimizer in optimizers:
                optimizer.sum = self._exchange.sum
            sum_over_workers = self._exchange.sum_one
        self._strategy, self._sum_over_workers = strategy, sum_over_workers
        self._with_xla = is_wanted(self._options.xla, devices.gpus)
        # Where replicas sum after each step, there is no program of several; and XLA's for CPUs is slower for it.
        alone = self._with_xla and devices.gpus > 0 and strategy.num_replicas_in_sync == 1
        self._together = (
            batches_together(self._options.batch_size, manifest.image_shape, size.epoch_steps) if alone else 0
        )
        self._enter(phase_at(self._phases, self._position.step))
        self._validate = build_validation(self.model, self._options.select_by, sum_over_workers)
        # Made once: each data set brings functions of its own, which have to be traced.
        cache_bytes = self._options.image_cache_mb * 10**6 // VALIDATION_PART
        self._validation_batches = ValidationBatches(share.dataset, share.validation, VALIDATION_BATCH, cache_bytes)
        self._batches = self._batches_on_devices()
        self._pace = Pace(cluster.workers, max(1, self._together))
        self._log = EpochLog(self._directory, self._options.epochs) if cluster.is_chief else None

    def _enter(self, phase: Phase) -> None:
        """Gets ready for the steps of a phase, from the position on."""
        self._phase = phase
        self._train_steps = build_train_steps(
            self._strategy,
            self.model,
            phase.optimizer,
            _objective(self._options, self._share),
            self._size.global_batch,
            self._sum_over_workers,
            with_xla=self._with_xla,
            part=phase.part,
            first_step=phase.first_step,
            together=self._together,
        )
        # Each worker drops other features than its peers, and after a restart not those it dropped before.
        _place_random_layers(self.model, self._options.seed, self._cluster, self._position)
        if phase.words:
            print(phase.words, flush=True)

    def run(self, notice: PreemptionNotice) -> None:
        """Trains to the end, which comes early where epochs no longer get better; then the model is the one to keep.

        Raises:
            NonFiniteLoss: When the loss is not a finite number.
            Preempted: When a worker was told to go; the state is saved then.
            ExchangeFailed: When another worker is lost.
            tf.errors.OpError: When TensorFlow finds that another worker is lost.
        """
        notice.training_begins()
        self._checkpoints.start()
        try:
            while not self._is_done:
                self._run_epoch(self._position.step // self._size.epoch_steps, notice)
        except tf.errors.OpError:
            if self._exchange and self._exchange.failure:
                raise self._exchange.failure from None
            raise
        if self._exchange:
            self._exchange.close()
        self._best.give_back(self.model)
        # The export takes memory, and with the input and its windows no more is done. What hands batches over to a GPU
        # is kept: its end would wait for a thread of TensorFlow's that sleeps for up to a minute.
        if not self._devices.gpus:
            del self._batches
        del self._validation_batches, self._train_steps, self._validate
        gc.collect()

    @property
    def _is_done(self) -> bool:
        epochs = self._position.step // self._size.epoch_steps
        patience = self._options.patience or self._options.epochs
        # What a new head reaches alone says nothing about what all layers will.
        best = max(self._best.epoch, self._frozen_epochs)
        return epochs >= self._options.epochs or epochs - best >= patience

    def _run_epoch(self, epoch: int, notice: PreemptionNotice) -> None:
        epoch_end = (epoch + 1) * self._size.epoch_steps
        if self._position.step == self._phase.end_step:
            self._progress.enter("build")
            self._enter(phase_at(self._phases, self._position.step))
        started, first_step = time.monotonic(), self._position.step
        told_to_go = self._take_steps(epoch_end, notice)
        if self._position.step < epoch_end:
            self._checkpoints.wait_for(self._position, SAVE_SECONDS)
            raise Preempted(f"told to go; saved after step {self._position.step}")
        speed = (epoch_end - first_step) * self._size.global_batch / (time.monotonic() - started)
        self._progress.enter("validate")
        scores = self._scores()
        self._progress.enter("log")
        if self._progress.attempt:
            self._progress.attempt.check()
        if self._log:
            rate = float(self._rates[epoch_end - 1])
            self._log.add({"epoch": epoch + 1, **scores, "images_per_second": speed, "learning_rate": rate})
        self._best.offer(epoch + 1, scores, self.model)
        self._position = Position(epoch_end, (0.0, 0.0))
        self._progress.enter("checkpoint")
        self._checkpoints.save(self._position, at_once=told_to_go or self._is_done)
        if told_to_go:
            self._checkpoints.wait_for(self._position, SAVE_SECONDS)
            raise Preempted(f"told to go; saved after step {epoch_end}, the end of epoch {epoch + 1}")

    def _take_steps(self, epoch_end: int, notice: PreemptionNotice) -> bool:
        """Goes on to the end of the epoch, or until a worker is told to go; returns whether one was."""
        told_to_go = False
        while self._position.step < epoch_end and not told_to_go:
            self._progress.enter("train")
            told_to_go = self._call(epoch_end - self._position.step, notice)
            if self._position.step < epoch_end:
                self._progress.enter("checkpoint")
                self._checkpoints.save(self._position, at_once=told_to_go)
        return told_to_go

    def _call(self, steps_left: int, notice: PreemptionNotice) -> bool:
        """Takes some steps in one call of TensorFlow; returns whether a worker was told to go."""
        count, started = self._pace.steps(steps_left), time.monotonic()
        carried = tf.constant([float(notice.given), self._pace.last_seconds])
        results = self._train_steps(self._batches, tf.constant(count), carried)
        loss, correct, told_to_go, seconds = results.numpy().tolist()
        self._pace.called(count, time.monotonic() - started, seconds)
        totals = (self._position.totals[0] + loss, self._position.totals[1] + correct)
        self._position = Position(self._position.step + count, totals)
        _check_finite(loss, self._position.step, float(self._rates[self._position.step - 1]))
        if self._cluster.is_chief:
            _note_progress(self._position, self._directory)
            self._progress.tell(step=self._position.step)
        return bool(told_to_go)

    def _scores(self) -> dict[str, float]:
        watched = self._progress.watch.over("validate", self._validation_batches)
        validation = self._validate(watched)
        images = self._size.epoch_steps * self._size.global_batch
        loss, accuracy = (total / images for total in self._position.totals)
        return {"loss": loss, "accuracy": accuracy, **validation}

    @property
    def _begun(self) -> int:
        """Steps done of the group in which the next one is: groups begin where they would without a restart."""
        return self._position.step % self._together if self._together else 0

    def _batches_on_devices(self) -> Iterator[Any] | BatchGroups:
        """This worker's training batches, where they are computed with."""
        if not self._devices.gpus:
            return iter(self._own_batches())
        ahead = tf.distribute.InputOptions(experimental_per_replica_buffer_size=BATCHES_ON_DEVICE)
        batches = iter(self._strategy.distribute_datasets_from_function(lambda _: self._own_batches(), ahead))
        return BatchGroups(batches, self._together, self._begun) if self._together else batches

    def _own_batches(self) -> tf.data.Dataset:
        replicas = self._size.local_replicas
        cache_bytes = self._options.image_cache_mb * 10**6 * (VALIDATION_PART - 1) // VALIDATION_PART
        return training_batches(
            self._share.dataset,
            self._share.train,
            self._options.batch_size,
            self._size.epoch_steps * replicas,
            self._options.seed,
            (self._position.step - self._begun) * replicas,
            self._options.augmentation,
            cache_bytes,
            self._devices.reading_threads,
            # A GPU takes images faster than GZIP gives them.
            max(WHOLE_SHARE_BYTES, cache_bytes) if self._devices.gpus else WHOLE_SHARE_BYTES,
            self._together,
        )


def _restored(
    checkpoints: Checkpoints, strategy: tf.distribute.Strategy, cluster: Cluster, attempt: OwnAttempt | None
) -> tuple[Position, int]:
    """Restores on every worker what the chief restores: another may not see its newest checkpoint yet.

    Returns:
        The position, and the number of the chief's attempt.
    """
    start = Position(0, (0.0, 0.0))
    own = (checkpoints.restore() or start) if cluster.is_chief else start
    number = attempt.number if attempt else 0
    if cluster.workers == 1:
        return own, number
    # In float64, which holds any number of steps.
    told = collective_sum(strategy, tf.constant([own.step, number], tf.float64))
    step, number = (int(value) for value in told.numpy())
    if cluster.is_chief or not step:
        return own, number
    return checkpoints.restore_step(step, VISIBLE_SECONDS), number


def _tell_resumption(position: Position, directory: Path) -> None:
    if position.step:
        reached = position.step
        with contextlib.suppress(OSError, ValueError):
            reached = int((directory / PROGRESS_FILE).read_text(encoding="utf-8"))
        repeated = max(0, reached - position.step)
        print(f"resumed after step {position.step}; {repeated} steps are repeated", flush=True)


def _note_progress(position: Position, directory: Path) -> None:
    # Only to tell how much a restart repeats: not worth failing for.
    with contextlib.suppress(OSError):
        write_whole(directory / PROGRESS_FILE, str(position.step))


def _objective(options: TrainOptions, share: _Share) -> Objective:
    manifest = share.dataset.manifest
    weights = class_weights(options.class_weights, manifest.class_names, manifest.splits["train"].class_counts)
    return Objective(weights, options.label_smoothing, options.mixup, options.seed)


def _check_finite(loss: float, step: int, rate: float) -> None:
    if not math.isfinite(loss):
        raise NonFiniteLoss(f"the loss is {loss} by step {step} at learning rate {rate:g}; lower learning_rates")


def _place_random_layers(model: keras.Model, seed: int, cluster: Cluster, position: Position) -> None:
    states = [variable for variable in model.variables if variable.name == RANDOM_STATE]
    for index, state in enumerate(states):  # with the same, all layers would draw alike
        state.assign([seed + cluster.index + index * cluster.workers, position.step])


def _wait_for_others(job: TrainingJob, cluster: Cluster) -> None:
    """Keeps the chief until the others are at their end: one that is not yet would take it for lost."""
    deadline = time.monotonic() + VISIBLE_SECONDS
    others = [WorkerReport.path(job.directory, index) for index in range(1, cluster.workers)]
    while not all(report.exists() for report in others) and time.monotonic() < deadline:
        time.sleep(CHIEF_POLL_SECONDS)


def _wait_for_chief(job: TrainingJob, cluster: Cluster) -> None:
    """Keeps this worker alive until the chief has written its report, the last thing it does.

    A worker that left at once could take its part of the last sum with it, which the chief may not have fetched yet. A
    barrier in TensorFlow would have the same flaw: whoever leaves it first can leave the other waiting, for 30 seconds.
    And a chief that is lost now needs its peers again, to do the rest.

    Raises:
        PeersUnreachable: When the chief is lost before it has written its report.
    """
    # TensorFlow's alarm about a chief that is done and gone is of no use to anybody.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    report = WorkerReport.path(job.directory, 0)
    # The chief ends by itself when it is stuck, a little after stuck_seconds.
    deadline = time.monotonic() + job.options.stuck_seconds + VISIBLE_SECONDS
    answered = time.monotonic()
    while not report.exists():
        now = time.monotonic()
        if answers(cluster.addresses[0]):
            answered = now
        if now - answered > VISIBLE_SECONDS or now > deadline:
            raise PeersUnreachable("the chief was lost while it exported the model")
        time.sleep(CHIEF_POLL_SECONDS)


def _weights_sha256(model: keras.Model) -> str:
    digest = hashlib.sha256()
    for weights in model.get_weights():
        digest.update(weights.tobytes())
    return digest.hexdigest()
