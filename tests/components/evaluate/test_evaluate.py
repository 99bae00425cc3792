import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.contracts.model_card import read_model_card
from kfp_image_classification.components.evaluate.evaluation_page import evaluation_page
from kfp_image_classification.components.evaluate.predictions import Predictions, predict_split
from kfp_image_classification.components.evaluate.scores import score
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed


@pytest.fixture(scope="module")
def predictions(trained: SimpleNamespace, digits: Dataset) -> Predictions:
    return predict_split(trained.model, digits, "test", kept_wrong=5)


def test_served_logits_are_the_trained_models(
    trained: SimpleNamespace, digits: Dataset, predictions: Predictions
) -> None:
    pixels, labels = next(records.read_batches(digits, digits.manifest.splits["test"].shards, 1000))
    trained_model = keras.models.load_model(trained.model / "model.keras")
    expected = trained_model(tf.cast(pixels, tf.float32) / 255, training=False)
    np.testing.assert_allclose(predictions.logits, expected, atol=1e-5)
    assert np.array_equal(predictions.labels, labels)


def test_validation_accuracy_is_what_training_measured(trained: SimpleNamespace, digits: Dataset) -> None:
    served = score(predict_split(trained.model, digits, "validation"), digits.manifest.class_names)
    last = trained.result.history[-1]
    assert served.accuracy == pytest.approx(last["val_accuracy"], abs=1e-6)
    assert served.loss == pytest.approx(last["val_loss"], abs=1e-5)


def test_worst_images_are_the_most_confidently_wrong(digits: Dataset, predictions: Predictions) -> None:
    sure = np.where(predictions.classes != predictions.labels, predictions.probabilities.max(axis=1), 0)
    assert predictions.wrong.tolist() == np.argsort(-sure, kind="stable")[:5].tolist()
    pixels, _ = next(records.read_batches(digits, digits.manifest.splits["test"].shards, 1000))
    assert np.array_equal(predictions.pixels, pixels.numpy()[predictions.wrong])


def test_model_and_data_in_folders_of_any_name(
    trained: SimpleNamespace, digits: Dataset, predictions: Predictions, tmp_path: Path
) -> None:
    folder = tmp_path / "[a] \\ *?é'"
    model = shutil.copytree(trained.model, folder / "model")
    data = Dataset(Path(shutil.copytree(digits.directory, folder / "shards")))
    assert np.array_equal(predict_split(Path(model), data, "test", kept_wrong=5).logits, predictions.logits)


def test_scores_of_a_known_case() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]))
    labels = np.array([0, 1, 1, 2])
    scores = score(Predictions(labels, logits, np.zeros((1, 2, 2, 1)), np.array([1])), ["a", "b", "c"])
    assert scores.accuracy == 0.75
    assert scores.loss == pytest.approx(-np.log([0.7, 0.3, 0.8, 0.6]).mean())
    assert scores.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert [(c.name, c.precision, c.recall, c.support) for c in scores.classes] == [
        ("a", 0.5, 1, 1),
        ("b", 1, 0.5, 2),
        ("c", 1, 1, 1),
    ]
    assert scores.macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


def test_page_has_pictures_and_every_class(digits: Dataset, predictions: Predictions) -> None:
    scores = score(predictions, digits.manifest.class_names)
    page = evaluation_page("cnn", digits.manifest.class_names, scores, scores, predictions)
    assert page.count('src="data:image/png;base64,') == len(predictions.wrong)
    assert page.count('<th scope="row">') == len(digits.manifest.class_names)
    assert f"Test accuracy {scores.accuracy:.2%}" in page


def test_model_for_other_classes_is_refused(trained: SimpleNamespace, digits: Dataset, tmp_path: Path) -> None:
    renamed = digits.manifest.model_copy(update={"class_names": list("abcdefghij"), "root": str(digits.directory)})
    (tmp_path / "manifest.json").write_text(renamed.model_dump_json())
    with pytest.raises(InvalidInput, match="evaluate it on its own data set"):
        predict_split(trained.model, Dataset(tmp_path), "test")


def test_incomplete_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="no numbered version folder"):
        read_model_card(tmp_path)
    (tmp_path / "1").mkdir()
    with pytest.raises(StageFailed, match=r"no readable assets.extra/model.json"):
        read_model_card(tmp_path)
