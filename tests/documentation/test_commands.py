"""Each command is run by a test, named here, or needs a cluster or an account.

The latter is said by its first words, or by the mark of its block: ```bash cluster, ```bash cloud.
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from documentation.pages import PAGES, REPOSITORY, Block, commands, prose
from kfp_image_classification.pipelines.e2e import e2e
from kfp_image_classification.pipelines.runner.parameters import add_options, check_parameters, given_parameters

MARKS = {"cluster", "cloud"}
NEEDS_MORE = re.compile(
    r"(\w+=\S+ )*((argocd|aws|docker|eksctl|flux|gcloud|helm|k3d|kind|kubectl|kustomize|podman) .*"
    r"|make (check|cluster|cluster-delete|images|images-import|submit)( .*)?"
    r"|python pipelines/e2e\.py --(check|submit).*)"
)
TESTED = {
    r"make (run|serve)( ARGS=.*)?": "tests/pipelines/runner/local/test_local_run.py",
    r"make test(-all)?( ARGS=.*)?": ".ci/run",
    r"make test-tools": "tests/test_test_tools.py",
    r"make lint": "tests/test_lint.py",
    r"(\w+=\S+ )*make compile": "tests/pipelines/runner/test_compiled.py",
    r"python pipelines/e2e\.py --(run|compile).*": "tests/pipelines/runner/local/test_local_run.py",
    r"(\w+=\S+ )*python pipelines/vertex\.py --compile": "tests/pipelines/runner/test_compiled.py",
    r"python pipelines/retrain\.py --run.*": "tests/pipelines/test_retrain.py",
    r"python examples/ingest_and_train\.py": "tests/examples/test_ingest_and_train.py",
    r"kfp dsl compile .*": "tests/documentation/test_commands.py",
    r"(python -m kfp_image_classification\.components\.deploy\.\w+|curl) .*": (
        "tests/components/deploy/server/test_server.py"
    ),
    r"make mlflow": "tests/components/track/test_track.py",
}
COMMANDS = commands()
NAMES = [f"{block} {command}" for block, command in COMMANDS]


@pytest.mark.parametrize(("block", "command"), COMMANDS, ids=NAMES)
def test_command_is_tested_or_marked(block: Block, command: str) -> None:
    if block.marks & MARKS or NEEDS_MORE.fullmatch(command):
        return
    tests = [test for pattern, test in TESTED.items() if re.fullmatch(pattern, command, re.DOTALL)]
    assert tests, f"no test is known that runs {command!r}: name it in TESTED, or mark the block"
    assert all((REPOSITORY / test).is_file() for test in tests)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def test_make_targets_exist() -> None:
    inline = [code for page in PAGES for code in re.findall(r"`([^`\n]+)`", prose(page))]
    named = {match[1] for text in [*inline, *NAMES] if (match := re.search(r"(?:^| )make ([a-z-]+)", text))}
    assert named <= make_targets(), named - make_targets()


def test_every_make_target_has_a_line_of_help() -> None:
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for target in make_targets():
        assert re.search(rf"^  make {target} +\S", shown, re.MULTILINE), target


def test_options_of_the_pipeline_exist_and_are_valid() -> None:
    script = REPOSITORY / "pipelines" / "e2e.py"
    shown = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True).stdout
    others = set(re.findall(r"--[a-z-]+", shown))
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_options(parser, e2e.pipeline_func)
    for block, command in COMMANDS:
        words = shlex.split(command)
        if words[:2] in (["make", "run"], ["make", "serve"], ["make", "submit"]):
            options = shlex.split(" ".join(word[5:] for word in words if word.startswith("ARGS=")))
        elif words[:2] == ["python", "pipelines/e2e.py"]:
            options = words[2:]
        else:
            continue
        arguments, rest = parser.parse_known_args(options)
        assert {word for word in rest if word.startswith("--")} <= others, str(block)
        check_parameters(given_parameters(arguments, e2e.pipeline_func))


def test_kfp_compiles_as_the_pages_say(tmp_path: Path) -> None:
    kfp = str(Path(sys.executable).with_name("kfp"))
    for _, command in COMMANDS:
        if command.startswith("kfp dsl compile"):
            words = shlex.split(command)
            words[words.index("--output") + 1] = str(tmp_path / "out.yaml")
            subprocess.run([kfp, *words[1:]], cwd=REPOSITORY, check=True)
            assert (tmp_path / "out.yaml").stat().st_size > 1000
