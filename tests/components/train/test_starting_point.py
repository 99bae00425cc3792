"""The weights that a training begins with, as the step finds them: compared with what is to be trained, and kept."""

from pathlib import Path

import pytest
from log_lines import LogLines

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.contracts.model_card import KERAS_MODEL, MODEL_CARD, ModelCard
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.starting_point import starting_point

GOOD = {"model_type": "cnn", "workers": 2, "epochs": 4, "batch_size": 32, "learning_rates": "0:1e-3", "seed": 0}
CARD = ModelCard(
    model_type="cnn",
    parameters=1,
    image_shape=(28, 28, 1),
    class_names=[str(digit) for digit in range(10)],
    dataset="mnist_5k",
    dataset_fingerprint="f",
    options={},
    run="r7",
    git_revision="",
    versions={},
    examples=[],
)


def model(folder: Path, **change: object) -> Path:
    (folder / "1" / MODEL_CARD).parent.mkdir(parents=True)
    (folder / "1" / MODEL_CARD).write_text(CARD.model_copy(update=change).model_dump_json())
    (folder / KERAS_MODEL).write_bytes(b"PK\x03\x04")
    return folder


def options(**change: object) -> TrainOptions:
    return TrainOptions(**{**GOOD, **change})


def test_none(digits: Dataset, tmp_path: Path) -> None:
    assert starting_point(options(), digits.manifest, tmp_path / "job", LogLines().logger) is None
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize(
    ("parameter", "change", "new_head", "told"),
    [
        ("weights", {}, True, "begins with weights = .* SHA-256 .*: all layers but the head, which is new"),
        ("initial_model", {}, False, "begins with initial_model = .* SHA-256 .*: all layers$"),
        (
            "initial_model",
            {"class_names": ["cat", "dog"]},
            True,
            r"its head is new, as that model knew 2 other classes \(cat, dog\) than the 10 of the data set",
        ),
    ],
    ids=["weights", "same classes", "other classes"],
)
def test_file_is_kept_in_the_jobs_folder(
    parameter: str, change: dict, new_head: bool, told: str, digits: Dataset, tmp_path: Path
) -> None:
    source, log = model(tmp_path / "model", **change), LogLines()
    chosen = options(**{parameter: str(source)})
    start = starting_point(chosen, digits.manifest, tmp_path / "job", log.logger)
    assert start
    assert (start.parameter, start.source, start.new_head) == (parameter, str(source), new_head)
    assert (start.model_type, start.run, start.dataset) == ("cnn", "r7", "mnist_5k")
    log.wait_for(told)
    assert [path.read_bytes() for path in (tmp_path / "job" / "start").iterdir()] == [b"PK\x03\x04"]
    jobs = [
        TrainingJob(options=chosen, dataset=str(digits.directory), directory="", start=one)
        for one in (start, start.model_copy(update={"sha256": "0"}))
    ]
    assert jobs[0].identity() != jobs[1].identity(), "it would go on from the checkpoints of other weights"


@pytest.mark.parametrize("parameter", ["weights", "initial_model"])
def test_other_architecture_is_refused(parameter: str, digits: Dataset, tmp_path: Path) -> None:
    source = model(tmp_path / "model", model_type="resnet:batch_size=64")
    with pytest.raises(InvalidInput) as error:
        starting_point(options(**{parameter: str(source)}), digits.manifest, tmp_path / "job", LogLines().logger)
    assert str(error.value) == (
        f"{parameter} = {str(source)!r}: is a model of resnet, and cnn is to be trained; train resnet, or give each "
        f"model its own, as in resnet:{parameter}=..."
    )
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "resnet"}, "it is a model of resnet, not cnn; trained from the beginning"),
        ({"image_shape": (32, 32, 1)}, r"it is for images of \(32, 32, 1\), not \(28, 28, 1\); trained from the begin"),
    ],
)
def test_deployed_model_of_another_kind_is_left_alone(change: dict, told: str, digits: Dataset, tmp_path: Path) -> None:
    """As the pipeline that trains anew may try several models, of which one is like the deployed one."""
    source, log = model(tmp_path / "model", **change), LogLines()
    chosen = options(initial_model="deployed")
    assert starting_point(chosen, digits.manifest, tmp_path / "job", log.logger, str(source)) is None
    log.wait_for(told)


def test_deployed_model(digits: Dataset, tmp_path: Path) -> None:
    source, chosen = model(tmp_path / "model"), options(initial_model="deployed")
    start = starting_point(chosen, digits.manifest, tmp_path / "job", LogLines().logger, str(source))
    assert start
    assert (start.source, start.new_head, start.run) == ("deployed", False, "r7")


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("none", "nothing is deployed; trained from the beginning"),
        ("/nowhere", "it cannot be read, so trained from the beginning: .* /nowhere/model.keras cannot be read"),
    ],
)
def test_nothing_that_can_be_read_is_deployed(uri: str, told: str, digits: Dataset, tmp_path: Path) -> None:
    log, chosen = LogLines(), options(initial_model="deployed")
    assert starting_point(chosen, digits.manifest, tmp_path / "job", log.logger, uri) is None
    log.wait_for(told)
