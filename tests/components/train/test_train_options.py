import pytest

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.step.errors import InvalidInput, checked
from kfp_image_classification.components.train.options import TrainOptions, check_fit

GOOD = {"model_type": "cnn", "workers": 2, "epochs": 1, "batch_size": 32, "learning_rates": "0:1e-3", "seed": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model_type": "vgg"},
            "model_type = 'vgg': unknown model; choose from cnn, cnn_batchnorm, cnn_dropout, cnn_small, convnext_tiny, "
            "efficientnet_v2_b0, mobilenet_v3_small, resnet, resnet50_v2",
        ),
        ({"backend": "slurm"}, "backend = 'slurm': Input should be 'auto', 'local', 'tfjob' or 'trainjob'"),
        ({"workers": 0}, "workers = 0: Input should be greater than or equal to 1"),
        ({"workers": 2.5}, "workers = 2.5: Input should be a valid integer"),
        ({"epochs": 0}, "epochs = 0: Input should be greater than or equal to 1"),
        ({"batch_size": -1}, "batch_size = -1: Input should be greater than or equal to 1"),
        ({"learning_rates": "0:-1"}, "learning_rates = '0:-1': each rate must be a number above 0"),
        ({"learning_rates": "cosine"}, "learning_rates = 'cosine': expected SHARE:RATE pairs"),
        ({"optimizer": "lion"}, "optimizer = 'lion': Input should be 'adam', 'adamw' or 'sgd'"),
        ({"weight_decay": 0.1}, "weight_decay = 0.1: adam takes none; use optimizer = adamw, or sgd"),
        ({"optimizer": "adamw"}, "weight_decay = 0.0: adamw without it is adam; give one, such as 0.01"),
        ({"optimizer": "sgd", "weight_decay": 1}, "weight_decay = 1: Input should be less than 1"),
        ({"gradient_clip": -1}, "gradient_clip = -1: Input should be greater than or equal to 0"),
        ({"label_smoothing": 1}, "label_smoothing = 1: Input should be less than 1"),
        ({"class_weights": "fair"}, "class_weights = 'fair': expected equal, balanced, or a JSON object"),
        ({"mixup": -0.1}, "mixup = -0.1: Input should be greater than or equal to 0"),
        ({"keep": "first"}, "keep = 'first': Input should be 'best' or 'last'"),
        ({"patience": -1}, "patience = -1: Input should be greater than or equal to 0"),
        ({"augmentation": "blur"}, "augmentation = 'blur': unknown augmentation; choose from none, shift"),
        (
            {"weights": "imagenet"},
            "weights = 'imagenet': there are none of cnn; give a path, or one of the models mobilenet_v3_small, ",
        ),
        ({"weights": ""}, "weights = '': is empty; give none, imagenet, a path or a URI"),
        ({"weights": "ftp://a/b"}, "weights = 'ftp://a/b': ftp:// is not known here; give a path, s3://BUCKET/PATH"),
        (
            {"weights": "a.keras", "initial_model": "b.keras"},
            "initial_model = 'b.keras': weights = 'a.keras' is given, too; weights takes all layers but the head",
        ),
        ({"initial_model": "a.weights.h5"}, "initial_model = 'a.weights.h5': has no head; give the folder of a Model"),
        ({"freeze_epochs": 1}, "freeze_epochs = 1: there are no weights to keep; give weights or initial_model, or 0"),
        ({"weights": "a.h5", "freeze_epochs": 2}, "freeze_epochs = 2: the training has 1 epochs; give at most so many"),
        ({"weights": "a.h5", "freeze_epochs": -1}, "freeze_epochs = -1: Input should be greater than or equal to 0"),
        ({"fine_tuning_rate": 0}, "fine_tuning_rate = 0: Input should be greater than 0"),
        ({"seed": -1}, "seed = -1: Input should be greater than or equal to 0"),
    ],
)
def test_bad_options(change: dict, message: str) -> None:
    with pytest.raises(InvalidInput) as error:
        checked(TrainOptions, **{**GOOD, **change})
    assert len(error.value.problems) == 1
    assert error.value.problems[0].startswith(message)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as error:
        checked(TrainOptions, **{**GOOD, "workers": 0, "epochs": 0, "model_type": "vgg"})
    assert len(error.value.problems) == 3


def test_numbers_may_arrive_as_floats() -> None:
    assert checked(TrainOptions, **{**GOOD, "workers": 2.0}).workers == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 1801}, "batch_size = 1801: 2 workers make a global batch of 3602, more than the 3600 training"),
        ({"class_weights": '{"ten": 2}'}, "the data set has no class 'ten'; its classes are 0, 1, 2"),
        ({"workers": 3}, "workers = 3: the data set has 8 training shards"),
    ],
)
def test_options_that_do_not_fit_the_data_set(digits: Dataset, change: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        check_fit(TrainOptions(**{**GOOD, **change}), digits.manifest)


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        ("cnn", (8, 8, 1), "model_type = 'cnn': needs images of at least 18 pixels, the data set's are 8 x 8; "),
        (
            "mobilenet_v3_small",
            (28, 28, 1),
            "model_type = 'mobilenet_v3_small': needs images of at least 32 pixels, the data set's are 28 x 28; set "
            "image_size = 32 or more",
        ),
    ],
)
def test_images_too_small_for_the_model(model: str, shape: tuple[int, ...], message: str, digits: Dataset) -> None:
    tiny = digits.manifest.model_copy(update={"image_shape": shape})
    with pytest.raises(InvalidInput, match=message):
        check_fit(TrainOptions(**{**GOOD, "model_type": model}), tiny)


@pytest.mark.parametrize(
    ("backend", "host", "expected"),
    [
        ("auto", "", "local"),
        ("auto", "10.0.0.1", "tfjob"),
        ("local", "10.0.0.1", "local"),
        ("trainjob", "", "trainjob"),
    ],
)
def test_backend_chosen_by_itself_is_that_of_the_place(
    backend: str, host: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    assert checked(TrainOptions, **{**GOOD, "backend": backend}).resolved_backend == expected
