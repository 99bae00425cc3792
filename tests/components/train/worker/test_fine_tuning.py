"""Trainings that begin with weights from elsewhere, and faults in each of their phases."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from log_lines import LogLines
from test_faults import HARDEST, OPTIONS, disturbed_run, weights

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.contracts.model_card import read_model_card
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sharding import write_dataset
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.step.stage_log import stage_log
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.run_job import run_job
from kfp_image_classification.components.train.starting_point import starting_point
from kfp_image_classification.components.train.worker.models import build_model
from kfp_image_classification.components.train.worker.trained_part import split


@pytest.fixture(scope="module")
def donor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of other classes, as nobody trained it: what it knows does not matter here."""
    keras.utils.set_random_seed(8)
    file = tmp_path_factory.mktemp("donor") / "cnn_dropout.keras"
    build_model("cnn_dropout", (28, 28, 1), 4, "float32").save(file)
    return file


def make_job(dataset: Dataset, directory: Path, **change: object) -> TrainingJob:
    options = TrainOptions(**{**OPTIONS.model_dump(), **change})
    start = starting_point(options, dataset.manifest, directory / "job", LogLines().logger)
    return TrainingJob(options=options, dataset=str(dataset.directory), directory=str(directory / "job"), start=start)


def body(model: keras.Model) -> list[np.ndarray]:
    values: list[np.ndarray] = split(model, "")[0].get_weights()
    return values


def go_back(job: TrainingJob, step: int) -> None:
    """Leaves of a job that is done what a fault right after a checkpoint would have left."""
    for file in Path(job.directory, "checkpoints").glob("step-*"):
        if int(re.findall(r"step-(\d+)", file.name)[0]) > step:
            file.unlink()
    for report in Path(job.directory, "reports").iterdir():
        report.unlink()


def test_same_weights_from_the_frozen_phase_its_end_and_after(digits: Dataset, donor: Path, tmp_path: Path) -> None:
    """Three epochs of two steps each, the head alone in two of them; a checkpoint after each."""
    change = {"weights": str(donor), "freeze_epochs": 2, "epochs": 3, "batch_size": 900, "checkpoint_seconds": 0}
    job = make_job(digits, tmp_path, **{**HARDEST, **change, "learning_rates": "warmup:0.5 cosine:1e-2"})
    log = LogLines()
    result = run_job(job, tmp_path / "model", log.logger)
    undisturbed = weights(job)
    for line in (
        r"begins with [\d,]+ weights of cnn_dropout.keras",
        "the head alone is trained: 650 weights",
        r"all layers are trained, at 0.1 of the learning rate",
    ):
        assert len(re.findall(rf"worker-0 \| {line}", log.text)) == 1, log.text
    # After the frozen phase a tenth of the schedule, which goes on.
    assert [row["learning_rate"] for row in result.history] == pytest.approx([1e-2 * 2 / 3, 1e-2, 1e-2 / 4 / 10])
    for step in (4, 2):
        go_back(job, step)
        log = LogLines()
        run_job(job, tmp_path / f"model-{step}", log.logger)
        assert f"resumed after step {step};" in log.text
        assert "begins with" not in log.text, "what the checkpoint has is newer"
        assert weights(job) == undisturbed
    card = read_model_card(tmp_path / "model").started_from
    assert card == job.start
    assert card
    assert result.metadata["started_from"] == card.words
    assert (card.parameter, card.source, card.new_head, len(card.sha256)) == ("weights", str(donor), True, 64)


@pytest.mark.parametrize("model", ["cnn_dropout", pytest.param("cnn_batchnorm", marks=pytest.mark.slow)])
def test_head_alone_leaves_all_other_layers_as_they_were(
    model: str, digits: Dataset, tmp_path: Path, donor: Path
) -> None:
    file = donor.with_name(f"{model}.keras")
    build_model(model, (28, 28, 1), 4, "float32").save(file)
    frozen = {"weights": str(file), "freeze_epochs": 2, "epochs": 2, "batch_size": 300, "learning_rates": "0:1e-2"}
    run_job(make_job(digits, tmp_path, model_type=model, **frozen), tmp_path / "model", LogLines().logger)
    before, after = (body(keras.models.load_model(one)) for one in (file, tmp_path / "model" / "model.keras"))
    for one, expected in zip(after, before, strict=True):
        np.testing.assert_array_equal(one, expected)


@pytest.mark.parametrize("same_classes", [True, False])
def test_initial_model_gives_all_layers(same_classes: bool, digits: Dataset, tmp_path: Path) -> None:
    """A rate that changes nothing: what comes out is what went in."""
    keras.utils.set_random_seed(9)
    before = build_model("cnn_small", (28, 28, 1), 10 if same_classes else 4, "float32")
    before.save(tmp_path / "before.keras")
    change = {"initial_model": str(tmp_path / "before.keras"), "learning_rates": "0:1e-20", "batch_size": 900}
    job = make_job(digits, tmp_path, model_type="cnn_small", epochs=1, workers=1, **change)
    assert job.start
    assert job.start.new_head == (not same_classes)
    run_job(job, tmp_path / "model", LogLines().logger)
    after = keras.models.load_model(tmp_path / "model" / "model.keras")
    layers = None if same_classes else -2
    kept, expected = (model.get_weights()[:layers] for model in (after, before))
    for one, other in zip(kept, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-15)
    assert read_model_card(tmp_path / "model").started_from == job.start


@pytest.fixture(scope="module")
def large_digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Digits of the least size that backbones take."""
    options = IngestOptions(dataset="mnist_5k", validation_share=0.1, workers=2, seed=0, image_size=32)
    directory = tmp_path_factory.mktemp("large") / "shards"
    write_dataset(open_source(options), options, directory, stage_log("test"))
    return Dataset(directory)


@pytest.mark.slow
def test_backbone_is_fine_tuned_by_two_workers_and_exported(large_digits: Dataset, tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    build_model("mobilenet_v3_small", (32, 32, 3), 7, "float32").save(tmp_path / "seen.keras")
    job = make_job(
        large_digits,
        tmp_path,
        model_type="mobilenet_v3_small",
        weights=str(tmp_path / "seen.keras"),
        freeze_epochs=1,
        epochs=8,
        batch_size=64,
        augmentation="photo",
        learning_rates="cosine:3e-3",
        fine_tuning_rate=1,
    )
    result = run_job(job, tmp_path / "model", LogLines().logger)
    weights(job)
    assert result.card.onnx_sha256
    assert result.card.started_from == job.start
    assert result.outcome[0] > 0.5
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"1", "model.keras"}


@pytest.mark.slow
@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_backbone_is_compiled_by_xla(compute_dtype: str, large_digits: Dataset, tmp_path: Path) -> None:
    change = {"xla": "on", "compute_dtype": compute_dtype, "epochs": 1, "batch_size": 256, "workers": 1}
    log = LogLines()
    job = make_job(large_digits, tmp_path, model_type="mobilenet_v3_small", **change)
    run_job(job, tmp_path / "model", log.logger)
    assert "with XLA" in log.text
    assert "trained without" not in log.text


@pytest.mark.slow
@pytest.mark.parametrize(
    "after", [r"epoch +1/", r"epoch +4/", "all layers are trained", r"epoch +6/"], ids=["frozen", "end", "new", "all"]
)
def test_killed_worker_in_each_phase(after: str, digits: Dataset, donor: Path, tmp_path: Path) -> None:
    change = {**HARDEST, "epochs": 8, "weights": str(donor), "freeze_epochs": 4}
    whole = make_job(digits, tmp_path / "undisturbed", **change)
    run_job(whole, tmp_path / "model", LogLines().logger)
    job = make_job(digits, tmp_path, **change)
    log, _ = disturbed_run(job, tmp_path / "again", lambda of: of[1].kill(), after)
    assert "worker-1 was ended by signal 9; restart 1 of 3" in log.text
    assert weights(job) == weights(whole)
