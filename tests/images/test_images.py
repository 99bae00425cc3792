"""The images' requirements, and their build files; building needs a registry, and is told in docs/local-kubeflow.md."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from repository import REPOSITORY

from kfp_image_classification.components.cluster import images
from kfp_image_classification.components.cluster.images import VERSION

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# What each image is to run: the package with its dependencies, or without them.
ROOTS = {
    "python-launcher": [*PROJECT["dependencies"], *EXTRAS["mlflow"]],
    "python-tensorflow": [*PROJECT["dependencies"], *EXTRAS["tensorflow"], *EXTRAS["parquet"]],
    "python-tensorflow-gpu": [
        *PROJECT["dependencies"],
        *EXTRAS["tensorflow"],
        *(line.replace("tensorflow", "tensorflow[and-cuda]") for line in EXTRAS["tensorflow"] if "tensorflow~" in line),
    ],
    "python-server": EXTRAS["server"],
    "python-collector": [*EXTRAS["collector"], *EXTRAS["buckets"], *EXTRAS["parquet"]],
    "python-server-tensorflow": [
        *EXTRAS["server"],
        *(line for line in EXTRAS["tensorflow"] if line.startswith("tensorflow~")),
    ],
}
LEAN = tomllib.loads((REPOSITORY / "images" / "lean.toml").read_text())["dependency-metadata"]
LEFT_OUT = re.findall(r"^([a-z-]+) ;", (REPOSITORY / "images" / "left-out.txt").read_text(), re.MULTILINE)
# In the lock of one image alone: nobody's environment for development has them.
NVIDIA = "nvidia-"
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
            if name.startswith(NVIDIA):
                continue
            lean = [package["requires-dist"] for package in LEAN if package["name"] == name]
            for line in lean[0] if lean else metadata.requires(name) or []:
                following = Requirement(line)
                if following.name in LEFT_OUT:
                    continue
                if not following.marker or following.marker.evaluate({**LINUX, **PYTHON, "extra": extra}):
                    waiting.append(following)
    return found


@pytest.mark.parametrize("image", ROOTS)
def test_requirements_are_those_of_the_lock(image: str) -> None:
    lock = pinned(REPOSITORY / "requirements.lock")
    for name, line in pinned(REPOSITORY / "images" / image / "requirements.txt").items():
        if image != "python-tensorflow-gpu" or not name.startswith(NVIDIA):
            assert line == lock[name], f"images/{image}/requirements.txt is stale: run `make lock`"


@pytest.mark.parametrize("image", ROOTS)
def test_requirements_are_what_the_image_needs(image: str) -> None:
    present = set(pinned(REPOSITORY / "images" / image / "requirements.txt"))
    assert needed(ROOTS[image]) - present == set(), f"images/{image}/requirements.txt is stale: run `make lock`"


@pytest.mark.parametrize(
    ("image", "absent"),
    [
        ("python-launcher", {"tensorflow", "keras", "kserve", "scikit-learn", "onnxruntime"}),
        # 3.35 GB with TensorFlow; what counts for it is in the model, as ONNX.
        ("python-server", {"tensorflow", "keras", "kfp", "kubernetes", "pandas", "fastapi", "cloudevents"}),
        ("python-server-tensorflow", {"kfp", "kubernetes", "pandas", "tensorflow-datasets", "scikit-learn"}),
        ("python-collector", {"tensorflow", "kfp", "kubernetes", "pandas", "onnxruntime", "grpcio-tools"}),
        ("python-tensorflow", {"pandas", "matplotlib", "libclang", "nvidia-cudnn-cu12"}),
        ("python-tensorflow-gpu", {"pandas", "matplotlib", "libclang"}),
    ],
)
def test_images_are_lean(image: str, absent: set[str]) -> None:
    assert absent.isdisjoint(pinned(REPOSITORY / "images" / image / "requirements.txt"))


def test_what_was_looked_through_is_what_is_installed() -> None:
    """A newer version may need more than the old one did: look again, and run it, before its number goes up here."""
    lock = pinned(REPOSITORY / "requirements.lock")
    assert {package["name"]: package["version"] for package in LEAN} == {
        package["name"]: lock[package["name"]][0] for package in LEAN
    }


SERVER = """
import kfp_image_classification.components.deploy.server.server
import kfp_image_classification.components.deploy.server.payload_log
from kfp_image_classification.components.deploy.server import grpc_server
grpc_server._kserve_messages()
import onnxruntime, httpx, uvloop, httptools
"""
COLLECTOR = """
import kfp_image_classification.components.deploy.collector.collector
from kfp_image_classification.components.contracts.folders import open_folder
from kfp_image_classification.components.contracts.payload_files import check_usable
check_usable("parquet")
open_folder("s3://a/b", "output")
import gcsfs, uvloop, httptools
"""


@pytest.mark.parametrize(("image", "code"), [("python-server", SERVER), ("python-collector", COLLECTOR)])
def test_a_server_imports_nothing_that_its_image_lacks(image: str, code: str) -> None:
    """Every import of its modules, and of those of the package that they import."""
    present = set(pinned(REPOSITORY / "images" / image / "requirements.txt"))
    absent = {
        module
        for module, packages in metadata.packages_distributions().items()
        if not any(canonicalize_name(package) in {*present, "kfp-image-classification"} for package in packages)
    }
    script = (
        "import sys\n"
        f"ABSENT = {absent!r}\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ABSENT: raise ModuleNotFoundError(name)\n"
        f"sys.meta_path.insert(0, Absent())\n{code}"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_image_has_its_folder() -> None:
    named = {
        name.split("/")[-1].split(":")[0]
        for name in (
            images.TENSORFLOW_IMAGE,
            images.TENSORFLOW_GPU_IMAGE,
            images.LAUNCHER_IMAGE,
            images.SERVER_IMAGE,
            images.SERVER_TENSORFLOW_IMAGE,
            images.COLLECTOR_IMAGE,
        )
    }
    assert named == {path.parent.name for path in (REPOSITORY / "images").glob("*/Dockerfile")} == set(ROOTS)


def test_the_image_for_gpus_is_the_other_one_with_nvidias_libraries() -> None:
    plain, gpu = (pinned(REPOSITORY / "images" / name / "requirements.txt") for name in list(ROOTS)[1:3])
    assert {"nvidia-cudnn-cu12", "nvidia-nccl-cu12", "nvidia-cuda-nvcc-cu12"} <= gpu.keys() - plain.keys()
    assert {name for name in gpu.keys() ^ plain.keys() if not name.startswith(NVIDIA)} == set()
    texts = [(REPOSITORY / "images" / name / "Dockerfile").read_text() for name in list(ROOTS)[1:3]]
    assert texts[0].replace("images/python-tensorflow/", "images/python-tensorflow-gpu/") == texts[1]


@pytest.mark.parametrize("image", ROOTS)
def test_image_runs_as_nobody_special(image: str) -> None:
    lines = (REPOSITORY / "images" / image / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["1000:1000"], "a numeric user, the last word on it"
    assert any("--require-hashes" in line and f"images/{image}/" not in line for line in lines)


@pytest.mark.parametrize("image", ROOTS)
def test_image_knows_the_version_of_this_package(image: str) -> None:
    """A model's card names it, and the image's default tag."""
    assert PROJECT["version"] == VERSION
    text = (REPOSITORY / "images" / image / "Dockerfile").read_text()
    assert "install --no-cache-dir --no-deps /app" in text
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    for file in ("pyproject.toml", PROJECT["readme"], "components", "pipelines"):
        assert f"!{file}" in ignored, f"{file} does not reach the builder"
    assert f"COPY pyproject.toml {PROJECT['readme']} /app/" in text


def test_every_image_is_checked() -> None:
    """What images/check.sh runs in an image loads here too, and has a size that it may have."""
    check = (REPOSITORY / "images" / "check.py").read_text()
    sizes = dict(re.findall(r"\[([a-z-]+)\]=(\d+)", (REPOSITORY / "images" / "check.sh").read_text()))
    assert set(sizes) == set(ROOTS)
    assert int(sizes["python-server"]) <= 500
    modules = re.findall(r'"((?:components|pipelines)\.[a-z_.]+)"', check)
    assert set(re.findall(r'"(python-[a-z-]+)": \[', check)) == set(ROOTS)
    for module in modules:
        path = REPOSITORY / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module
    packaged = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package, file in re.findall(r'"([a-z_.]+)": "(page[.a-z0-9]+|pipeline[._a-z0-9]+)"', check):
        assert f"kfp_image_classification.{package}" in packaged
        assert (REPOSITORY / package.replace(".", "/") / file).is_file()
    others = {
        path.parent.relative_to(REPOSITORY)
        for folder in ("components", "pipelines")
        for path in (REPOSITORY / folder).rglob("*.j2")
    }
    assert {str(path).replace("/", ".") for path in others} <= set(re.findall(r'"([a-z_.]+)": "', check))
