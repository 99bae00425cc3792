"""metadata.yaml beside each component: in the catalogue's format, and in agreement with pyproject.toml and the code."""

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from repository import REPOSITORY

from kfp_image_classification.pipelines.runner.compiled import all_components

STAGES = sorted(path.parent.name for path in (REPOSITORY / "components").glob("*/component.py"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
# What a catalogue calls a thing, and the Python package whose version decides about it.
PACKAGES = {"Pipelines": "kfp", "KServe": "kserve"}


class Dependency(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    version: str = Field(pattern=r"^(==|>=|<=|~=)?\d+\.\d+\.\d+$")


class Dependencies(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kubeflow: list[Dependency]
    external_services: list[Dependency] = []


class Metadata(BaseModel):
    """The fields that kubeflow/pipelines-components allows and requires (scripts/validate_metadata there)."""

    model_config = ConfigDict(extra="forbid")

    name: str
    description: str
    stability: Literal["alpha", "beta", "stable"]
    dependencies: Dependencies
    tags: list[str]
    lastVerified: AwareDatetime


def metadata(stage: str) -> Metadata:
    return Metadata.model_validate(yaml.safe_load((REPOSITORY / "components" / stage / "metadata.yaml").read_text()))


def required() -> dict[str, str]:
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    matches = [re.match(r"([\w.-]+)(.*)", line) for line in lines]
    return {match[1]: match[2] for match in matches if match}


@pytest.mark.parametrize("stage", STAGES)
def test_metadata_names_the_component(stage: str) -> None:
    found = metadata(stage)
    assert found.name == all_components()[stage].name
    assert found.lastVerified <= datetime.now(UTC)


@pytest.mark.parametrize("stage", STAGES)
def test_dependencies_are_those_of_the_package(stage: str) -> None:
    found = metadata(stage).dependencies
    assert "Pipelines" in {dependency.name for dependency in found.kubeflow}
    for dependency in [*found.kubeflow, *found.external_services]:
        if dependency.name in PACKAGES:
            assert dependency.version == required()[PACKAGES[dependency.name]], dependency.name


@pytest.mark.parametrize(
    "file", sorted((REPOSITORY / "compiled" / "components").glob("*.yaml")), ids=lambda file: file.stem
)
def test_compiled_component_runs_in_the_image_of_this_version(file: Path) -> None:
    spec = next(yaml.safe_load_all(file.read_text()))
    (executor,) = spec["deploymentSpec"]["executors"].values()
    assert executor["container"]["image"].endswith(f":{PROJECT['version']}")
