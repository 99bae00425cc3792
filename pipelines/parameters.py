"""A pipeline's parameters as command-line options, and their checks: one source, the pipeline function itself."""

import argparse
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin

import docstring_parser

from components.deploy.options import DeployOptions
from components.errors import InvalidInput, checked
from components.ingest.options import IngestOptions
from components.select.leaderboard import SelectOptions
from components.train.options import TrainOptions

PipelineFunction = Callable[..., Any]


def add_options(parser: argparse.ArgumentParser, pipeline_function: PipelineFunction) -> None:
    """Adds an option for each parameter, with its type and default, and its help from the docstring."""
    docstring = docstring_parser.parse(pipeline_function.__doc__ or "")
    help_texts = {parameter.arg_name: parameter.description or "" for parameter in docstring.params}
    group = parser.add_argument_group("pipeline parameters")
    for name, parameter in inspect.signature(pipeline_function).parameters.items():
        is_list = get_origin(parameter.annotation) is list
        default = " ".join(parameter.default) if is_list else parameter.default
        help_text = " ".join(help_texts[name].replace("%", "%%").split())
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=get_args(parameter.annotation)[0] if is_list else parameter.annotation,
            nargs="+" if is_list else None,
            default=parameter.default,
            metavar=name.upper() if not is_list else name.upper().removesuffix("S"),
            help=f"{help_text} (default: {default!r})",
        )


def given_parameters(arguments: argparse.Namespace, pipeline_function: PipelineFunction) -> dict[str, Any]:
    """Picks the pipeline's parameters from the parsed options."""
    return {name: getattr(arguments, name) for name in inspect.signature(pipeline_function).parameters}


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Checks the parameters of `e2e` as the stages will, all of them at once and before anything is created.

    Raises:
        InvalidInput: With every problem found, each naming its parameter.
    """
    problems: dict[str, None] = {}
    models = parameters["models"]
    if not models:
        problems["models = []: name at least one model"] = None
    if len(set(models)) != len(models):
        problems[f"models = {models!r}: each model can be named once"] = None
    checks: list[tuple[type, dict[str, Any]]] = [
        (IngestOptions, {}),
        *((TrainOptions, {"model_type": model, "backend": parameters["train_backend"]}) for model in models),
        (SelectOptions, {}),
        (DeployOptions, {"backend": parameters["deploy_backend"]}),
    ]
    for options, own in checks:
        shared = {name: parameters[name] for name in options.model_fields if name in parameters}
        try:
            checked(options, **{**shared, **own})
        except InvalidInput as error:
            problems.update(dict.fromkeys(error.problems))
    if problems:
        raise InvalidInput(problems)
