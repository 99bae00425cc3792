import argparse
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from repository import REPOSITORY

from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.pipelines.e2e import e2e
from kfp_image_classification.pipelines.runner.local.run_cache import cache_key
from kfp_image_classification.pipelines.runner.parameters import (
    add_options,
    check_data_set,
    check_parameters,
    given_parameters,
    local_parameters,
)

SCRIPT = REPOSITORY / "pipelines" / "e2e.py"
DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(e2e.pipeline_func).parameters.items()}


def test_defaults_are_good() -> None:
    check_parameters(DEFAULTS)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"dataset": ""}, "dataset = ''"),
        ({"models": []}, "models = []"),
        ({"models": ["cnn", "cnn"]}, "models = ['cnn', 'cnn']: each model can be named once"),
        (
            {"models": ["cnn", "vgg"]},
            "model_type = 'vgg': unknown model; choose from cnn, cnn_batchnorm, cnn_dropout, cnn_small, convn",
        ),
        ({"models": ["cnn:batch_size=64", "cnn:batch_size=64"]}, "models = ['cnn:batch_size=64', 'cnn:batch_size=64']"),
        ({"models": ["cnn", "cnn:batch_size=0"]}, "batch_size = '0': Input should be greater than or equal to 1"),
        ({"models": ["cnn:workers=3"]}, "model_type = 'cnn:workers=3': a model has no setting workers; choose from"),
        ({"models": ["cnn:batch_size"]}, "model_type = 'cnn:batch_size': expected a model, or one with settings"),
        (
            {"weights": "imagenet", "models": ["cnn"]},
            "weights = 'imagenet': there are none of cnn; give a path, or one",
        ),
        (
            {"models": ["cnn:freeze_epochs=2"]},
            "freeze_epochs = '2': there are no weights to keep; give weights or init",
        ),
        (
            {"weights": "a.h5", "initial_model": "deployed"},
            "initial_model = 'deployed': weights = 'a.h5' is given, too; weights takes all layers but the head from",
        ),
        (
            {"initial_model": "deployed", "force": True},
            "initial_model = 'deployed': with force = true nobody looks which model is deployed; give its folder or",
        ),
        ({"workers": 0}, "workers = 0"),
        ({"epochs": 0}, "epochs = 0"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"validation_share": 0.0}, "validation_share = 0.0"),
        ({"validation_share": 0.6}, "validation_share = 0.6"),
        ({"image_size": 4}, "image_size = 4: must be 0 (the data set's own size) or from 8 to 1024 pixels"),
        ({"learning_rates": "1e-3"}, "learning_rates = '1e-3': expected SHARE:RATE pairs"),
        ({"seed": -1}, "seed = -1"),
        ({"max_restarts": -1}, "max_restarts = -1"),
        ({"gate": 90}, "gate = 90: accuracy is a share; give a number from 0 to 1"),
        ({"gate": -1}, "gate = -1"),
        ({"select_by": "f1"}, "select_by = 'f1'"),
        ({"min_recall": {"cat": 2}}, "min_recall.cat = 2"),
        ({"service_name": "My Service"}, "service_name = 'My Service'"),
        ({"service_port": 70000}, "service_port = 70000"),
        ({"train_backend": "slurm"}, "backend = 'slurm'"),
        ({"deploy_backend": "seldon"}, "backend = 'seldon'"),
        ({"service_namespace": "a_b"}, "namespace = 'a_b'"),
        ({"canary_percent": 10}, "canary_percent = 10: in deployment mode Standard"),
        ({"service": {"scale_metric": "qps"}}, "service.scale_metric = 'qps'"),
        ({"worker_cpu": "0m"}, "worker_cpu = '0m': must be a Kubernetes quantity above zero"),
        ({"pvc": "My Claim"}, "pvc = 'My Claim': must be a name as Kubernetes takes it"),
        ({"job": {"deadline": 3}}, "job.deadline = 3"),
        ({"job": {"chief": True}, "train_backend": "trainjob"}, "job.chief = True: not for backend trainjob"),
    ],
)
def test_each_problem_is_told_once(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput) as error:
        check_parameters({**DEFAULTS, **change})
    assert len(error.value.problems) == 1
    assert error.value.problems[0].startswith(problem)


def test_backend_chosen_by_itself_is_local_on_this_machine() -> None:
    local = local_parameters({**DEFAULTS, "train_backend": "auto", "workers": 3})
    assert (local["train_backend"], local["workers"]) == ("local", 3)
    assert local_parameters({**DEFAULTS, "train_backend": "tfjob"})["train_backend"] == "tfjob"


def test_struct_parameter_is_given_as_json() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, e2e.pipeline_func)
    given = parser.parse_args(["--job", '{"start_seconds": 60}'])
    assert given_parameters(given, e2e.pipeline_func)["job"] == {"start_seconds": 60}


@pytest.mark.parametrize(("text", "problem"), [("{", "is not JSON"), ("[1]", "is not a JSON object")])
def test_struct_parameter_that_is_none(text: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, e2e.pipeline_func)
    with pytest.raises(SystemExit):
        parser.parse_args(["--job", text])
    assert problem in capsys.readouterr().err


def test_model_as_json_has_its_short_name() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, e2e.pipeline_func)
    given = parser.parse_args(["--models", '{"model": "cnn", "batch_size": 64}', "resnet", "cnn:x"])
    assert given_parameters(given, e2e.pipeline_func)["models"] == ["cnn:batch_size=64", "resnet", "cnn:x"]


def test_own_model_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers" / "models.py").write_text("raise RuntimeError('no code is run for this')")
    monkeypatch.chdir(tmp_path)
    check_data_set({**DEFAULTS, "models": ["flowers.models:build"]})
    with pytest.raises(InvalidInput, match=f"there is no package trees, neither installed nor in {tmp_path}"):
        check_data_set({**DEFAULTS, "models": ["trees.models:build:epochs=3"]})


def test_changed_code_of_an_own_model_is_not_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parameters = {**DEFAULTS, "models": ["flowers:build"]}
    keys = []
    for code in ("a = 1", "a = 2", "a = 1"):
        (tmp_path / "flowers.py").write_text(code)
        keys.append(cache_key(parameters))
    assert keys[0] == keys[2] != keys[1]


def test_weights_are_looked_at_before_a_run(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"^weights = '{tmp_path}': {tmp_path}/model.keras cannot be read: No such"):
        check_data_set({**DEFAULTS, "models": [f"cnn:weights={tmp_path}", "cnn_dropout"]})


def test_changed_weights_are_not_taken_from_the_cache(tmp_path: Path) -> None:
    file = tmp_path / "a.weights.h5"
    keys = []
    for content in (b"1", b"2", b"1"):
        file.write_bytes(b"\x89HDF\r\n\x1a\n" + content)
        keys.append(cache_key({**DEFAULTS, "models": [f"cnn:weights={file}", "cnn"]}))
    assert keys[0] == keys[2] != keys[1]


def test_problems_of_all_stages_are_told_together() -> None:
    with pytest.raises(InvalidInput) as error:
        check_parameters({**DEFAULTS, "workers": 0, "gate": 2, "service_name": "?", "models": ["a", "b"]})
    assert len(error.value.problems) == 5


def test_command_line_tells_every_parameter_with_its_default() -> None:
    shown = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True, check=True).stdout
    for name in DEFAULTS:
        assert f"--{name.replace('_', '-')} " in shown
    assert "(default: 'cnn cnn_dropout cnn_batchnorm')" in " ".join(shown.split())


def test_bad_input_ends_before_anything_is_made(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, SCRIPT, "--run", "--workers", "0", "--models", "cnn", "vgg"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "error: workers = 0: Input should be greater than or equal to 1",
        "error: model_type = 'vgg': unknown model; choose from cnn, cnn_batchnorm, cnn_dropout, cnn_small, "
        "convnext_tiny, efficientnet_v2_b0, mobilenet_v3_small, resnet, resnet50_v2, "
        "or give a function of your own as my_package.models:build",
    ]
    assert list(tmp_path.iterdir()) == []
