"""The images' requirements, and their build files; building needs a registry, and is told in docs/local-kubeflow.md."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from repository import REPOSITORY

from kfp_image_classification.components.cluster import images

EXTRAS = {"python-launcher": ["mlflow"], "python-tensorflow": ["tensorflow"], "python-server": ["tensorflow", "server"]}
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}
PYTHON = {"python_version": "3.11", "python_full_version": "3.11.0"}


def pinned(path: Path) -> dict[str, tuple[str, set[str]]]:
    """Each package's version and its hashes; a marker differs with what else is installed, so it is left out."""
    found = {}
    for block in re.split(r"\n(?=\S)", path.read_text()):
        if "==" in block.splitlines()[0]:
            name, version = block.split()[0].split("==")
            found[name] = (version, set(re.findall(r"--hash=(\S+)", block)))
    return found


def needed(requirements: list[str]) -> set[str]:
    """All packages that these ones need, as the installed packages tell it."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(line) for line in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        found.add(name)
        for extra in ["", *requirement.extras]:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for line in metadata.requires(name) or []:
                following = Requirement(line)
                if not following.marker or following.marker.evaluate({**LINUX, **PYTHON, "extra": extra}):
                    waiting.append(following)
    return found


@pytest.mark.parametrize("image", EXTRAS)
def test_requirements_are_those_of_the_lock(image: str) -> None:
    lock = pinned(REPOSITORY / "requirements.lock")
    for name, line in pinned(REPOSITORY / "images" / image / "requirements.txt").items():
        assert line == lock[name], f"images/{image}/requirements.txt is stale: run `make lock`"


@pytest.mark.parametrize("image", EXTRAS)
def test_requirements_are_what_the_extras_need(image: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    roots = list(project["dependencies"])
    for extra in EXTRAS[image]:
        roots += project["optional-dependencies"][extra]
    present = set(pinned(REPOSITORY / "images" / image / "requirements.txt"))
    assert needed(roots) - present == set(), f"images/{image}/requirements.txt is stale: run `make lock`"


def test_launcher_is_small() -> None:
    present = set(pinned(REPOSITORY / "images" / "python-launcher" / "requirements.txt"))
    assert present.isdisjoint({"tensorflow", "keras", "kserve", "scikit-learn"})


def test_every_image_has_its_folder() -> None:
    named = {
        name.split("/")[-1].split(":")[0]
        for name in (images.TENSORFLOW_IMAGE, images.LAUNCHER_IMAGE, images.SERVER_IMAGE)
    }
    assert named == {path.parent.name for path in (REPOSITORY / "images").glob("*/Dockerfile")} == set(EXTRAS)


@pytest.mark.parametrize("image", EXTRAS)
def test_image_runs_as_nobody_special(image: str) -> None:
    lines = (REPOSITORY / "images" / image / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["1000:1000"], "a numeric user, the last word on it"
    assert any("--require-hashes" in line and f"images/{image}/" not in line for line in lines)


@pytest.mark.parametrize("image", EXTRAS)
def test_image_knows_the_version_of_this_package(image: str) -> None:
    """A model's card names it, read from the metadata that only an installed package has."""
    text = (REPOSITORY / "images" / image / "Dockerfile").read_text()
    assert "install --no-cache-dir --no-deps /app" in text
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    for file in ("pyproject.toml", project["readme"], "components", "pipelines"):
        assert f"!{file}" in ignored, f"{file} does not reach the builder"
    assert f"COPY pyproject.toml {project['readme']} /app/" in text
