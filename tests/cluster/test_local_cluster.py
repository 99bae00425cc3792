"""`make cluster` needs a network; programs that only take its commands down tell here what it would do."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from repository import REPOSITORY

from kfp_image_classification.components.preflight.operators import install_command

RECORDER = """#!{python}
import json, os, sys
name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(" ".join([name, *arguments]) + "\\n")
if name == "k3d" and arguments[:2] == ["cluster", "list"]:
    sys.exit(0 if os.path.exists({cluster!r}) else 1)
if name == "k3d" and arguments[:2] == ["cluster", "create"]:
    open({cluster!r}, "w").close()
if name == "k3d" and arguments[:2] == ["cluster", "delete"]:
    os.remove({cluster!r})
if "get" in arguments and "configmap" in arguments:
    print(json.dumps({{"data": {{"deploy": '{{"defaultDeploymentMode": "Knative", "x": 1}}', "ingress": "{{}}"}}}}))
"""


class Machine:
    """A machine whose docker, k3d and kubectl only take down what they are told."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "log"
        self._programs = directory / "bin"
        self._programs.mkdir()
        for name in ("docker", "k3d", "kubectl"):
            program = self._programs / name
            cluster = str(directory / "cluster")
            program.write_text(RECORDER.format(python=sys.executable, log=str(self._log), cluster=cluster))
            program.chmod(0o755)

    def run(self, script: str, **environment: str) -> list[str]:
        """The commands that a script gives."""
        self._log.write_text("")
        path = f"{self._programs}:{os.environ['PATH']}"
        subprocess.run(
            [REPOSITORY / script],
            env={**os.environ, "PATH": path, **environment},
            check=True,
            capture_output=True,
            timeout=60,
        )
        return self._log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def positions(commands: list[str], *parts: str) -> list[int]:
    found = [next((i for i, command in enumerate(commands) if part in command), -1) for part in parts]
    assert -1 not in found, (parts, found, commands)
    return found


def test_a_cluster_is_made_in_order(machine: Machine) -> None:
    commands = machine.run("cluster/create.sh")
    order = positions(
        commands,
        "k3d cluster create image-classification --image rancher/k3s:v1.",
        "/cert-manager.yaml",
        "kustomize/cluster-scoped-resources?ref=2.17.",
        "kustomize/env/platform-agnostic?ref=2.17.",
        "training-operator.git/manifests/overlays/standalone?ref=v1.9.",
        "/kserve.yaml",
        "patch configmap inferenceservice-config",
        "rollout restart deployment kserve-controller-manager",
        "/kserve-cluster-resources.yaml",
        "apply --server-side --force-conflicts -k manifests/overlays/local",
        "docker build",
        "k3d image import --cluster image-classification",
    )
    assert order == sorted(order)
    assert not [command for command in commands if "trainer.git" in command]
    assert len([command for command in commands if command.startswith("docker build")]) == 5


def test_every_command_names_the_cluster(machine: Machine) -> None:
    commands = machine.run("cluster/create.sh", CLUSTER="digits")
    for command in commands:
        if command.startswith("kubectl") and "config use-context" not in command:
            assert command.startswith("kubectl --context k3d-digits "), command


def test_kserve_is_set_to_standard_mode(machine: Machine) -> None:
    commands = machine.run("cluster/create.sh", IMAGES="0")
    (patch,) = [json.loads(command.split("--patch ")[1]) for command in commands if "--patch" in command]
    assert json.loads(patch["data"]["deploy"]) == {"defaultDeploymentMode": "Standard", "x": 1}
    assert json.loads(patch["data"]["ingress"])["disableIngressCreation"] is True


def test_again_it_starts_what_is_there(machine: Machine) -> None:
    machine.run("cluster/create.sh", IMAGES="0")
    commands = machine.run("cluster/create.sh", IMAGES="0", TRAINER="1")
    positions(commands, "k3d cluster start", "trainer.git/manifests/overlays/manager?ref=v2.", "overlays/local-trainer")
    assert not [command for command in commands if "cluster create" in command or command.startswith("docker")]


def test_it_is_removed(machine: Machine) -> None:
    machine.run("cluster/create.sh", IMAGES="0")
    assert machine.run("cluster/delete.sh")[-1] == "k3d cluster delete image-classification"
    assert machine.run("cluster/delete.sh") == ["k3d cluster list image-classification"]


@pytest.mark.parametrize(
    ("backend", "version"), [("tfjob", "TRAINING_OPERATOR"), ("trainjob", "TRAINER"), ("kserve", "KSERVE")]
)
def test_remedies_name_the_versions_that_are_installed(backend: str, version: str) -> None:
    pinned = dict(re.findall(r"export (\w+)_VERSION=(\S+)", (REPOSITORY / "cluster/versions.sh").read_text()))
    assert pinned[version] in install_command(backend)


def test_the_pipelines_are_those_of_the_sdk() -> None:
    versions = (REPOSITORY / "cluster" / "versions.sh").read_text()
    project = (REPOSITORY / "pyproject.toml").read_text()
    (minor,) = re.findall(r"PIPELINES_VERSION=(\d+\.\d+)\.", versions)
    assert f'"kfp~={minor}.0"' in project
    (serving,) = re.findall(r"KSERVE_VERSION=v(\d+\.\d+)\.", versions)
    assert f'"kserve~={serving}.0"' in project


def test_the_document_names_the_versions_that_are_installed() -> None:
    document = (REPOSITORY / "docs" / "local-kubeflow.md").read_text()
    versions = (REPOSITORY / "cluster" / "versions.sh").read_text()
    for pinned in re.findall(r"export (?:\w+_VERSION|K3S_IMAGE)=(\S+)", versions):
        assert pinned in document
