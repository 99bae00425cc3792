"""A pipeline's parameters as command-line options, and their checks: one source, the pipeline function itself."""

import argparse
import inspect
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin

import docstring_parser

from kfp_image_classification.components.contracts.deployed_model import begins_with_deployed
from kfp_image_classification.components.deploy.options import DeployOptions
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.monitor.options import MonitorOptions
from kfp_image_classification.components.select.options import SelectOptions, check_classes
from kfp_image_classification.components.step.errors import InvalidInput, Options, checked, run_checks
from kfp_image_classification.components.step.lean_import import import_without
from kfp_image_classification.components.track.options import track_options
from kfp_image_classification.components.train.launchers.job_options import JobOptions, check_backend
from kfp_image_classification.components.train.model_settings import ModelSettings, own_package
from kfp_image_classification.components.train.options import TrainOptions, check_batch
from kfp_image_classification.components.train.starting_point import find_named
from kfp_image_classification.components.train.variants import check_model

KFP_PLACEHOLDER = "{{$"
# Its numbers are JSON's, which are floats of 64 bits.
LARGEST_NUMBER = 2**53

PipelineFunction = Callable[..., Any]

# Spellings from before a parameter got its present name.
FORMER_NAMES = {"gate": ["--min-accuracy"]}
# Options that take their default from where others look for it, too.
ENVIRONMENT = {"mlflow_uri": "MLFLOW_TRACKING_URI"}


def add_options(parser: argparse.ArgumentParser, pipeline_function: PipelineFunction) -> None:
    """Adds an option for each parameter, with its type and default, and its help from the docstring."""
    docstring = docstring_parser.parse(pipeline_function.__doc__ or "")
    help_texts = {parameter.arg_name: parameter.description or "" for parameter in docstring.params}
    group = parser.add_argument_group("pipeline parameters")
    for name, parameter in inspect.signature(pipeline_function).parameters.items():
        is_list = get_origin(parameter.annotation) is list
        default = " ".join(parameter.default) if is_list else parameter.default
        help_text = " ".join(help_texts.get(name, "").replace("%", "%%").split())
        variable = ENVIRONMENT.get(name, "")
        group.add_argument(
            f"--{name.replace('_', '-')}",
            *FORMER_NAMES.get(name, []),
            dest=name,
            type=_parser(parameter.annotation),
            nargs="+" if is_list else None,
            default=os.environ.get(variable, parameter.default),
            metavar=name.upper() if not is_list else name.upper().removesuffix("S"),
            help=f"{help_text} (default: {f'${variable}' if variable else repr(default)})",
        )


def _parser(annotation: Any) -> Callable[[str], Any]:
    if annotation is dict:
        return _json_object
    if annotation is bool:
        return _true_or_false
    parser: Callable[[str], Any] = get_args(annotation)[0] if get_origin(annotation) is list else annotation
    return parser


def _true_or_false(text: str) -> bool:
    try:
        return {"true": True, "false": False}[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false") from None


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object, such as '{{\"name\": 1}}'")
    return value


def local_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters for this machine: a backend chosen by itself is the local one, also when this is a pod."""
    return {
        name: "local" if name.endswith("_backend") and value == "auto" else value for name, value in parameters.items()
    }


def given_parameters(arguments: argparse.Namespace, pipeline_function: PipelineFunction) -> dict[str, Any]:
    """Picks the pipeline's parameters from the parsed options; models with settings as they are named everywhere."""
    given = {name: getattr(arguments, name) for name in inspect.signature(pipeline_function).parameters}
    return {**given, "models": [_named(model) for model in given["models"]]} if "models" in given else given


def _named(model: str) -> str:
    try:
        return ModelSettings.parse(model).text
    except ValueError:  # told with all other mistakes
        return model


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Checks the parameters of e2e and retrain as the stages will, all of them at once and before anything is created.

    Raises:
        InvalidInput: With every problem found, each naming its parameter.
    """
    models = parameters["models"]
    run_checks(
        [
            lambda: _check_values(parameters),
            lambda: _check_models(models),
            lambda: _check_deployed(parameters),
            lambda: _options(IngestOptions, parameters),
            *(partial(train_options, parameters, model) for model in models),
            lambda: check_backend(_options(JobOptions, parameters), parameters["train_backend"]),
            # The service's own parameters are checked, and told, as those of deploy.
            lambda: _select_options(parameters),
            lambda: _options(
                DeployOptions,
                parameters,
                backend=parameters["deploy_backend"],
                namespace=parameters["service_namespace"],
            ),
            lambda: _track_options(parameters),
            lambda: _monitor_options(parameters),
        ]
    )


def check_timeout(seconds: float) -> None:
    """Checks how long a cluster is waited for.

    Raises:
        InvalidInput: When it is no length of time.
    """
    if not seconds >= 0:  # what is no number is not, either
        raise InvalidInput(f"timeout = {seconds:g}: must be 0 or more seconds")


def check_data_set(parameters: Mapping[str, Any]) -> None:
    """Looks at the data set before a local run, without reading its images or downloading anything.

    Raises:
        InvalidInput: When there is no such data set, or the models cannot be trained on it with these parameters.
    """
    from kfp_image_classification.components.ingest.sources.opening import open_source
    from kfp_image_classification.components.ingest.split_plan import count_to_train

    with import_without("keras"):
        options = _options(IngestOptions, parameters)
        source = open_source(options, dry=True)
    models = [ModelSettings.parse(model) for model in parameters["models"]]
    checks: list[Callable[[], object]] = [
        partial(check_model, model.architecture, source.image_shape) for model in models
    ]
    checks += [partial(_check_findable, model.architecture) for model in models if model.is_own]
    checks += [partial(find_named, train_options(parameters, model)) for model in parameters["models"]]
    checks.append(lambda: check_classes(_select_options(parameters), source.class_names))
    if source.splits:
        images = count_to_train(source, options)
        checks += [partial(check_batch, train_options(parameters, model), images) for model in parameters["models"]]
    run_checks(checks)


def _check_findable(architecture: str) -> None:
    """Looks for the package of a user's own model, without running its code."""
    if own_package(architecture) is None:
        raise InvalidInput(
            f"models: {architecture!r}: there is no package {architecture.split(':')[0].split('.')[0]}, neither "
            f"installed nor in {Path.cwd()}"
        )


def _check_values(parameters: Mapping[str, Any]) -> None:
    """Refuses what KFP cannot pass on to a step as it is, here and on a cluster."""
    problems = []
    for name, value in parameters.items():
        shown = f"{name} = {value!r}"
        text = json.dumps(value, ensure_ascii=False)
        if KFP_PLACEHOLDER in text:
            problems.append(f"{shown}: KFP takes {KFP_PLACEHOLDER} for a placeholder of its own; choose another name")
        if not _is_utf8(text):
            problems.append(f"{shown}: is not UTF-8, as KFP needs it; choose another name")
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            problems.append(f"{shown}: KFP hands on numbers up to {LARGEST_NUMBER:,} as they are; give a smaller one")
    if problems:
        raise InvalidInput(problems)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_models(models: list[str]) -> None:
    if not models:
        raise InvalidInput("models = []: name at least one model")
    if len(set(models)) != len(models):
        raise InvalidInput(f"models = {models!r}: each model can be named once")


def _check_deployed(parameters: Mapping[str, Any]) -> None:
    if parameters.get("force") and begins_with_deployed(parameters["initial_model"], parameters["models"]):
        raise InvalidInput(
            "initial_model = 'deployed': with force = true nobody looks which model is deployed; give its folder or "
            "URI, or force = false"
        )


def check_mlflow_server(parameters: Mapping[str, Any]) -> None:
    """Asks the MLflow server, if one is to be used, before a local run: hours of training must not end without it.

    Raises:
        InvalidInput: When MLflow's client is not installed.
        StageFailed: When the server cannot be reached, or refuses the credentials.
    """
    if not parameters["mlflow_uri"]:
        return
    from kfp_image_classification.components.track.mlflow_server import check_server

    check_server(parameters["mlflow_uri"])


def train_options(parameters: Mapping[str, Any], model: str) -> TrainOptions:
    """What train will make of the parameters for one of the models.

    Raises:
        InvalidInput: With all their problems.
    """
    return _options(TrainOptions, parameters, model_type=model, backend=parameters["train_backend"])


def _select_options(parameters: Mapping[str, Any]) -> SelectOptions:
    return _options(SelectOptions, {name: parameters[name] for name in ("select_by", "gate", "min_recall")})


def _track_options(parameters: Mapping[str, Any]) -> None:
    if parameters["mlflow_uri"]:
        names = ("mlflow_uri", "mlflow_experiment", "kfp_ui")
        track_options(**{name: parameters[name] for name in names}, registered_model=parameters["service_name"])


def _monitor_options(parameters: Mapping[str, Any]) -> None:
    if "events" in parameters:  # of the pipeline that watches a service
        _options(MonitorOptions, parameters)


def _options(options: type[Options], parameters: Mapping[str, Any], **own: Any) -> Options:
    shared = {name: parameters[name] for name in options.model_fields if name in parameters}
    return checked(options, **{**shared, **own})
