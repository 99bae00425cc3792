"""Real workers: two processes, TF_CONFIG, MultiWorkerMirroredStrategy."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from benchmarks.soak.training import Watch
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sharding import write_dataset
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.step.stage_log import stage_log
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.run_job import run_job
from kfp_image_classification.components.train.worker.input_pipeline import (
    steps_per_epoch,
    training_batches,
    worker_shards,
)
from kfp_image_classification.components.train.worker.models import MODELS
from kfp_image_classification.components.train.worker.worker_report import WorkerReport


def reports(directory: str) -> list[WorkerReport]:
    return [WorkerReport.model_validate_json(WorkerReport.path(directory, index).read_text()) for index in (0, 1)]


def served_nodes(model: Path) -> list[tf.compat.v1.NodeDef]:
    graph = SavedModel.FromString((model / "1" / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    return [*graph.node, *(node for function in graph.library.function for node in function.node_def)]


def test_workers_end_with_equal_weights(trained: SimpleNamespace) -> None:
    first, second = reports(trained.job.directory)
    assert first.weights_sha256 == second.weights_sha256 != ""


@pytest.mark.slow  # the real workers of the Kubernetes launcher's tests have these weights, too
def test_same_seed_same_weights(trained: SimpleNamespace, tmp_path: Path) -> None:
    again = trained.job.model_copy(update={"directory": str(tmp_path / "job")})
    run_job(again, tmp_path / "model", stage_log("test"))
    assert reports(again.directory)[0].weights_sha256 == reports(trained.job.directory)[0].weights_sha256


@pytest.mark.parametrize(("model_type", "exchange"), [("cnn", "ring"), ("cnn_batchnorm", "sockets")])
def test_as_one_process_on_the_same_global_batches(
    model_type: str, exchange: str, digits: Dataset, train_options: TrainOptions, tmp_path: Path
) -> None:
    """The reference is plain Keras: no strategy, no loop of ours, the workers' batches put together.

    Two steps only, and differences compared with how far the weights moved: Adam turns the sign of a gradient that is
    all rounding error into a whole step, so single weights differ even when the same images are summed in other order.
    """
    changes = {"model_type": model_type, "exchange": exchange, "batch_size": 900, "epochs": 1}
    options = train_options.model_copy(update=changes)
    job = TrainingJob(options=options, dataset=str(digits.directory), directory=str(tmp_path / "job"))
    run_job(job, tmp_path / "model", stage_log("test"))

    shards = digits.manifest.splits["train"].shards
    steps = steps_per_epoch(shards, 2, options.batch_size)
    streams = [
        training_batches(digits, worker_shards(shards, index, 2), options.batch_size, steps, options.seed)
        for index in (0, 1)
    ]
    keras.utils.set_random_seed(options.seed)
    model = MODELS[model_type]((28, 28, 1), 10)
    start = model.get_weights()
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for parts in itertools.islice(zip(*streams, strict=True), steps * options.epochs):
        pixels, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        model.train_on_batch(pixels.astype(np.float32) / 255, labels)

    distributed = keras.models.load_model(tmp_path / "model" / "model.keras")
    for before, alone, together in zip(start, model.get_weights(), distributed.get_weights(), strict=True):
        moved = np.abs(alone - before).mean()
        assert moved > 1e-4, "a step that changes nothing proves nothing"
        assert np.median(np.abs(together - alone)) < 0.02 * moved


def test_history_has_each_epoch_with_rate_and_both_splits(trained: SimpleNamespace) -> None:
    history = trained.result.history
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert all(row["learning_rate"] == pytest.approx(1e-3) for row in history)
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["val_accuracy"] > 0.85


def test_bfloat16_learns_as_well_and_is_served_in_float32(trained: SimpleNamespace, tmp_path: Path) -> None:
    options = trained.job.options.model_copy(update={"compute_dtype": "bfloat16", "gradient_dtype": "bfloat16"})
    job = trained.job.model_copy(update={"options": options, "directory": str(tmp_path / "job")})
    result = run_job(job, tmp_path / "model", stage_log("test"))
    first, second = reports(job.directory)
    assert first.weights_sha256 == second.weights_sha256 != reports(trained.job.directory)[0].weights_sha256
    assert result.history[-1]["val_accuracy"] > trained.result.history[-1]["val_accuracy"] - 0.03
    assert {weight.dtype for weight in keras.models.load_model(tmp_path / "model" / "model.keras").get_weights()} == {
        np.dtype(np.float32)
    }
    assert not [node for node in served_nodes(tmp_path / "model") if "BFLOAT16" in str(node.attr.get("T"))]
    assert result.card.onnx_sha256


def test_nothing_piles_up_with_the_steps(trained: SimpleNamespace, tmp_path: Path) -> None:
    """The short form of `make bench-soak`."""
    options = trained.job.options.model_copy(update={"model_type": "cnn_small", "epochs": 10, "checkpoint_seconds": 1})
    job = trained.job.model_copy(update={"options": options, "directory": str(tmp_path / "job")})
    watch = Watch(tmp_path / "job", 0.1)
    watch.start()
    try:
        run_job(job, tmp_path / "model", stage_log("test"))
    finally:
        watch.stop()
    assert sorted(watch.samples) == [0, 1]
    for samples in watch.samples.values():
        # The last moments are those of the export.
        start, end = (max((s for s in samples if s.step <= step), key=lambda s: s.step) for step in (150, 500))
        assert start.step >= 50
        assert end.step >= 400
        assert end.threads <= start.threads + 10
        assert end.files <= start.files + 4
        assert end.maps <= start.maps + 100


def test_every_workers_log_is_kept(trained: SimpleNamespace) -> None:
    logs = [Path(trained.job.directory, "logs", f"worker-{index}.log").read_text() for index in (0, 1)]
    assert "worker 0 of 2: 4 of 8 shards" in logs[0]
    assert "worker 1 of 2: 4 of 8 shards" in logs[1]
    assert "epoch  3/3" in logs[0]
    assert "epoch" not in logs[1].replace("steps an epoch", "")
    assert all("trained under CollectiveAllReduceStrategy" in log for log in logs)


def test_tensorboard_files_are_of_the_chief_alone(trained: SimpleNamespace) -> None:
    events = list(Path(trained.job.directory, "tensorboard").rglob("events.*"))
    assert events
    tags = {
        value.tag
        for path in events
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    }
    assert {"epoch_loss", "epoch_accuracy", "epoch_learning_rate"} <= tags


def test_model_folder_is_what_servers_expect(trained: SimpleNamespace) -> None:
    assert {path.name for path in trained.model.iterdir()} == {"1", "model.keras"}
    assert (trained.model / "1" / "saved_model.pb").is_file()
    card = trained.result.card
    assert card.model_type == "cnn"
    assert card.run == "r1"
    assert card.options["seed"] == 7
    assert [example.label for example in card.examples] == [str(digit) for digit in range(10)]


def test_served_graph_needs_no_variables(trained: SimpleNamespace) -> None:
    """TensorFlow Serving 2.6 has no operation that newer TensorFlow reads variables with."""
    operations = {node.op for node in served_nodes(trained.model)}
    assert not operations & {"ReadVariableOp", "VarHandleOp", "DisableCopyOnRead"}, operations


def test_altered_photograph_ends_the_job_with_its_shard(
    train_options: TrainOptions, ingest_options: IngestOptions, tmp_path: Path
) -> None:
    """It is found when it is read, in the middle of TensorFlow's input, and is no lost worker."""
    as_files = ingest_options.model_copy(update={"record_format": "encoded"})
    write_dataset(open_source(as_files), as_files, tmp_path / "shards", stage_log("test"))
    altered = next((tmp_path / "shards").glob("train-00003-*"))
    content = bytearray(altered.read_bytes())
    content[len(content) // 2] ^= 1
    altered.write_bytes(content)
    job = TrainingJob(options=train_options, dataset=str(tmp_path / "shards"), directory=str(tmp_path / "job"))
    with pytest.raises(StageFailed, match=rf"{altered.name}: its sha256 is not the manifest's: the file is altered"):
        run_job(job, tmp_path / "model", stage_log("test"))
    assert not (tmp_path / "model").exists()
