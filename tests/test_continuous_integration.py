"""What runs elsewhere is what runs here."""

import tomllib

import yaml
from repository import REPOSITORY


def test_workflow_runs_what_a_user_runs_on_every_python_that_is_promised() -> None:
    jobs = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert ".ci/run" in [step.get("run") for step in jobs["test"]["steps"]]
    assert "make lint" in [step.get("run") for step in jobs["lint"]["steps"]]
    assert [step["run"] for step in jobs["images"]["steps"] if "run" in step] == ["make images", "images/check.sh"]
    pythons = jobs["test"]["strategy"]["matrix"]["python"]
    promised = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["requires-python"]
    lowest, beyond = (bound.lstrip(">=<") for bound in promised.split(","))
    assert pythons[0] == lowest
    assert f"3.{int(pythons[-1].split('.')[1]) + 1}" == beyond


def test_hooks_are_the_tools_of_make_lint() -> None:
    (repository,) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    recipe = (REPOSITORY / "Makefile").read_text()
    for hook in repository["hooks"]:
        tool = hook["entry"].removeprefix(".venv/bin/").removesuffix(" --fix")
        assert f"$(BIN)/{tool}" in recipe
