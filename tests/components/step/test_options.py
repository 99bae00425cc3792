"""An option stands in its class; components and pipelines take its words, and its default, from there."""

import inspect
from typing import Any

import docstring_parser
import pytest
from kfp import dsl
from pydantic import BaseModel

from kfp_image_classification.components.deploy import deploy
from kfp_image_classification.components.deploy.options import DeployOptions
from kfp_image_classification.components.evaluate import evaluate
from kfp_image_classification.components.ingest import ingest
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.select import select
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.step.options import described_by, options_from
from kfp_image_classification.components.track import track
from kfp_image_classification.components.train import train
from kfp_image_classification.components.train.launchers.job_options import JobOptions
from kfp_image_classification.components.train.options import TrainOptions
from kfp_image_classification.components.train.vertex import plan_custom_job
from kfp_image_classification.pipelines.e2e import e2e
from kfp_image_classification.pipelines.vertex import vertex

COMPONENTS = [train, ingest, evaluate, select, deploy, track]


class Soup(BaseModel):
    """What a soup takes.

    Attributes:
        salt: Grams of it,
            or pinches.
        water: Litres.
    """

    salt: int
    water: int = 1


def test_options_take_their_own_of_the_arguments() -> None:
    assert options_from(Soup, {"salt": 3, "bread": 2}, water=5) == Soup(salt=3, water=5)
    with pytest.raises(InvalidInput, match="salt = 'much'"):
        options_from(Soup, {"salt": "much"})


def test_words_come_from_the_options() -> None:
    @described_by(Soup)
    def cook(pot: str, salt: int, water: int) -> bool:
        """Cooks.

        Args:
            pot: In what.
            water: From the well.

        Returns:
            Whether it is good.
        """
        return True

    assert inspect.getdoc(cook) == (
        "Cooks.\n\nArgs:\n    pot: In what.\n    water: From the well.\n    salt: Grams of it, or pinches.\n\n"
        "Returns:\n    Whether it is good."
    )


def test_words_come_from_a_component() -> None:
    @described_by(ingest)
    def cook(dataset: str) -> None:
        """Cooks."""

    assert "mnist_5k" in docstring_parser.parse(cook.__doc__ or "").params[0].description


def test_parameter_that_nobody_describes() -> None:
    with pytest.raises(LookupError, match="cook: nobody describes pepper"):

        @described_by(Soup)
        def cook(salt: int, pepper: int) -> None:
            """Cooks."""


# Where it is left out, it follows from another option.
FOLLOWS = {"peer_seconds"}


@pytest.mark.parametrize(
    ("component", "classes"),
    [
        (ingest, [IngestOptions]),
        (train, [TrainOptions, JobOptions]),
        (plan_custom_job, [TrainOptions]),
        (deploy, [DeployOptions]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_defaults_of_a_component_are_those_of_its_options(component: Any, classes: list[type[BaseModel]]) -> None:
    parameters = inspect.signature(component.python_func).parameters
    for options in classes:
        for name, field in options.model_fields.items():
            if name in parameters and not field.is_required():
                default = field.get_default(call_default_factory=True)
                expected = {} if isinstance(default, BaseModel) else default
                assert name in FOLLOWS or parameters[name].default == expected, name


# Where the pipeline has a reason to begin with another value than the component: a run on a cluster needs them.
OTHER_DEFAULTS = {"pvc", "worker_image", "gate", "service_name"}


@pytest.mark.parametrize("pipeline", [e2e, vertex], ids=lambda pipeline: pipeline.name)
def test_defaults_of_a_pipeline_are_those_of_its_components(pipeline: Any) -> None:
    for component in COMPONENTS:
        inputs = component.component_spec.inputs
        for name, parameter in inspect.signature(pipeline.pipeline_func).parameters.items():
            if name in inputs and name not in OTHER_DEFAULTS and inputs[name].optional:
                assert parameter.default == inputs[name].default, f"{component.name}: {name}"


@pytest.mark.parametrize("described", [*COMPONENTS, e2e, vertex], ids=lambda described: described.name)
def test_every_input_is_described(described: dsl.base_component.BaseComponent) -> None:
    for name, spec in (described.component_spec.inputs or {}).items():
        assert spec.description, name
