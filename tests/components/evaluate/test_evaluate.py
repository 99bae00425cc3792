import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.contracts.evaluation import Evaluation, NoChampion, read_answers
from kfp_image_classification.components.contracts.model_card import MODEL_CARD, read_model_card
from kfp_image_classification.components.evaluate.champion import measured_champion
from kfp_image_classification.components.evaluate.evaluation_page import evaluation_page
from kfp_image_classification.components.evaluate.measuring import Measured, evaluation_of, measure_split
from kfp_image_classification.components.evaluate.metrics import metrics_of
from kfp_image_classification.components.evaluate.predictions import ServedModel, check_fits
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed


@pytest.fixture(scope="module")
def served(trained: SimpleNamespace, digits: Dataset) -> ServedModel:
    return ServedModel(trained.model, digits.manifest.class_names)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def test_split(served: ServedModel, digits: Dataset, output: Path) -> Measured:
    return measure_split(served, digits, "test", output, kept_wrong=5)


@pytest.fixture(scope="module")
def evaluation(
    trained: SimpleNamespace, served: ServedModel, digits: Dataset, output: Path, test_split: Measured
) -> Evaluation:
    validation = measure_split(served, digits, "validation", output)
    return evaluation_of(trained.model, "minio://a/b", served, digits, {"validation": validation, "test": test_split})


@pytest.fixture(scope="module")
def test_images(digits: Dataset) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = next(records.read_batches(digits, digits.manifest.splits["test"].shards, 1000))
    return pixels.numpy(), labels.numpy()


def test_served_logits_are_the_trained_models(
    trained: SimpleNamespace, served: ServedModel, test_images: tuple[np.ndarray, np.ndarray]
) -> None:
    pixels, _ = test_images
    trained_model = keras.models.load_model(trained.model / "model.keras")
    expected = trained_model(tf.cast(pixels, tf.float32) / 255, training=False)
    np.testing.assert_allclose(served.logits(pixels), expected, atol=1e-5)


def test_validation_accuracy_is_what_training_measured(trained: SimpleNamespace, evaluation: Evaluation) -> None:
    scores, last = evaluation.splits["validation"], trained.result.history[-1]
    assert scores.accuracy.value == pytest.approx(last["val_accuracy"], abs=1e-6)
    assert scores.log_loss.value == pytest.approx(last["val_loss"], abs=1e-5)


def test_worst_images_are_the_most_confidently_wrong(
    served: ServedModel, test_images: tuple[np.ndarray, np.ndarray], test_split: Measured, output: Path
) -> None:
    pixels, labels = test_images
    logits = served.logits(pixels)
    sure = np.where(logits.argmax(axis=1) != labels, tf.nn.softmax(logits).numpy().max(axis=1), 0)
    positions = [image.position for image in test_split.wrong]
    assert positions == np.argsort(-sure, kind="stable")[:5].tolist()
    assert all(np.array_equal(image.pixels, pixels[image.position]) for image in test_split.wrong)
    answers = read_answers(output, "test")
    assert np.array_equal(answers["label"], labels)
    assert np.array_equal(answers["predicted"], logits.argmax(axis=1))


def test_model_and_data_in_folders_of_any_name(
    trained: SimpleNamespace, digits: Dataset, output: Path, test_split: Measured, tmp_path: Path
) -> None:
    folder = tmp_path / "[a] \\ *?é'"
    model = ServedModel(Path(shutil.copytree(trained.model, folder / "model")), digits.manifest.class_names)
    data = Dataset(Path(shutil.copytree(digits.directory, folder / "shards")))
    measure_split(model, data, "test", folder)
    assert np.array_equal(read_answers(folder, "test"), read_answers(output, "test"))


def test_metrics_have_every_score_with_its_interval(evaluation: Evaluation) -> None:
    metrics = metrics_of(evaluation)
    for split in ("val", "test"):
        for name in ("accuracy", "loss", "macro_f1", "balanced_accuracy"):
            value, low, high = (metrics[f"{split}_{name}{end}"] for end in ("", "_low", "_high"))
            assert low < value < high, name
    assert metrics["parameters"] == 93322
    assert metrics["bytes"] > 93322 * 4
    assert 0 < metrics["answer_milliseconds"] < 1000


def test_page_has_pictures_and_every_class(digits: Dataset, test_split: Measured, evaluation: Evaluation) -> None:
    page = evaluation_page("cnn", evaluation.splits, test_split)
    accuracy = evaluation.splits["test"].accuracy
    assert page.count('src="data:image/png;base64,') == len(test_split.wrong)
    assert page.count('<th scope="row">') == len(digits.manifest.class_names)
    assert f"Test accuracy {accuracy.value:.2%}" in page
    assert f"{accuracy.value:.2%} ({100 * accuracy.low:.1f} to {100 * accuracy.high:.1f})" in page
    assert page.count("<circle") == len(test_split.tally.bins())


def renamed(digits: Dataset, folder: Path, names: list[str]) -> Dataset:
    manifest = digits.manifest.model_copy(update={"class_names": names, "root": str(digits.directory)})
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return Dataset(folder)


def test_model_for_other_classes_is_refused(trained: SimpleNamespace, digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="evaluate it on its own data set"):
        check_fits(trained.model, renamed(digits, tmp_path, list("abcdefghij")))


def test_champion_answers_as_it_did_when_it_was_new(
    trained: SimpleNamespace, digits: Dataset, evaluation: Evaluation, output: Path, tmp_path: Path
) -> None:
    measured = measured_champion(trained.model, "minio://a/b", digits, tmp_path)
    assert isinstance(measured, Evaluation)
    assert measured.splits == {"validation": evaluation.splits["validation"]}
    assert np.array_equal(read_answers(tmp_path, "validation"), read_answers(output, "validation"))


def test_champions_classes_in_another_order_are_told_apart_all_the_same(
    trained: SimpleNamespace, digits: Dataset, evaluation: Evaluation, tmp_path: Path
) -> None:
    """The card says that the model calls a 0 what it called a 9: it is right where a data set says so, too."""
    model = shutil.copytree(trained.model, tmp_path / "model")
    card = read_model_card(model)
    turned = card.model_copy(update={"class_names": card.class_names[::-1]})
    (model / "1" / MODEL_CARD).write_text(turned.model_dump_json())
    measured = measured_champion(model, "", digits, tmp_path)
    assert isinstance(measured, Evaluation)
    assert measured.splits["validation"].accuracy.value < 0.3 < evaluation.splits["validation"].accuracy.value


@pytest.mark.parametrize(
    ("harm", "reason", "holds_back"),
    [
        ("other classes", "it tells other classes apart than these", False),
        ("gone", "there are no files of it at minio://a/b", True),
        ("empty", "there are no files of it at minio://a/b", True),
        ("no card", r"it cannot be used \(.*no readable assets.extra/model.json", True),
        ("no graph", r"it cannot be used \(", True),
    ],
)
def test_champion_that_cannot_be_measured(
    harm: str, reason: str, holds_back: bool, trained: SimpleNamespace, digits: Dataset, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(trained.model, tmp_path / "model"))
    if harm == "other classes":
        digits = renamed(digits, tmp_path, list("abcdefghij"))
    elif harm == "no card":
        (model / "1" / MODEL_CARD).unlink()
    elif harm == "no graph":
        (model / "1" / "saved_model.pb").unlink()
    else:
        shutil.rmtree(model)
        if harm == "empty":
            model.mkdir()
    found = measured_champion(model, "minio://a/b", digits, tmp_path)
    assert isinstance(found, NoChampion)
    assert found.holds_back is holds_back
    assert re.match(reason, found.reason)


def test_incomplete_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="no numbered version folder"):
        read_model_card(tmp_path)
    (tmp_path / "1").mkdir()
    with pytest.raises(StageFailed, match=r"no readable assets.extra/model.json"):
        read_model_card(tmp_path)
