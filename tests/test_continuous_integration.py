"""What runs elsewhere is what runs here."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import yaml
from repository import REPOSITORY


def test_workflow_runs_what_a_user_runs_on_every_python_that_is_promised() -> None:
    jobs = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert ".ci/run --require definitions --require api-server" in [step.get("run") for step in jobs["test"]["steps"]]
    assert "make lint" in [step.get("run") for step in jobs["lint"]["steps"]]
    pythons = jobs["test"]["strategy"]["matrix"]["python"]
    promised = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["requires-python"]
    lowest, beyond = (bound.lstrip(">=<") for bound in promised.split(","))
    assert pythons[0] == lowest
    assert f"3.{int(pythons[-1].split('.')[1]) + 1}" == beyond


def test_no_test_is_skipped_for_want_of_a_program() -> None:
    program = (REPOSITORY / ".ci" / "run").read_text().splitlines()
    assert program[-2:] == ["make test-tools", 'make test ARGS="--require tool $*"']


def test_definitions_are_fetched_in_the_versions_of_the_cluster(tmp_path: Path) -> None:
    """The script itself, beside a curl that notes what it is asked for."""
    asked = tmp_path / "asked"
    (tmp_path / "curl").write_text(f'#!/bin/sh\nfor url; do :; done\necho "$url" >> {asked}\ntouch "$8"\n')
    (tmp_path / "curl").chmod(0o755)
    script = REPOSITORY / "tests" / "kubernetes_api" / "fetch_definitions.sh"
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([script, tmp_path / "crds"], env={"PATH": path}, check=True)
    fetched = {file.stem for file in (tmp_path / "crds").iterdir()}
    kinds = ("tfjobs.kubeflow.org", "trainjobs.trainer.kubeflow.org")
    assert fetched == {*kinds, "clustertrainingruntimes.trainer.kubeflow.org", "inferenceservices.serving.kserve.io"}
    versions = dict(re.findall(r"export (\w+)_VERSION=(\S+)", (REPOSITORY / "cluster" / "versions.sh").read_text()))
    named = {url.split("/")[5] for url in asked.read_text().split()}
    assert named == {versions[name] for name in ("TRAINING_OPERATOR", "TRAINER", "KSERVE")}


def test_hooks_are_the_tools_of_make_lint() -> None:
    (repository,) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    recipe = (REPOSITORY / "Makefile").read_text()
    for hook in repository["hooks"]:
        tool = hook["entry"].removeprefix(".venv/bin/").removesuffix(" --fix")
        assert f"$(BIN)/{tool}" in recipe
