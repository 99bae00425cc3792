"""Options that would do nothing are refused, each in one sentence that says with what it goes."""

import argparse
from pathlib import Path

import pytest

from kfp_image_classification.pipelines.e2e import e2e
from kfp_image_classification.pipelines.retrain import retrain
from kfp_image_classification.pipelines.runner.applicable import APPLICABLE, COMMANDS, PARAMETERS
from kfp_image_classification.pipelines.runner.command_line import _parser

# A value for each option of the command line that takes one.
SWITCHES = ("serve", "verbose", "plain", "no_cache", "wait")
TEXTS = ("runs_dir", "host", "experiment", "run_name", "token_file", "token", "ca_cert", "namespace", "service_account")
VALUES = {
    **{name: [] for name in SWITCHES},
    **{name: ["x"] for name in TEXTS},
    "output": ["x.yaml"],
    "timeout": ["1"],
    "gate": ["0.9"],
}


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@pytest.mark.parametrize(
    ("name", "other"),
    [(n, c) for n in VALUES for c in COMMANDS if c not in APPLICABLE.get(n, PARAMETERS)],
)
def test_an_option_of_another_command_is_refused(name: str, other: str, command, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = command(option(other), option(name), *VALUES[name])
    *most, last = (option(one) for one in APPLICABLE.get(name, PARAMETERS))
    goes_with = f"{', '.join(most)} and {last}" if most else last
    assert (ended.code, ended.out) == (2, [])
    assert ended.err == [f"error: {option(name)} goes with {goes_with}, and not with --{other}"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pipeline", [e2e, retrain])
def test_every_option_is_in_the_table_or_a_parameter(pipeline) -> None:
    parser = _parser(pipeline)
    assert isinstance(parser, argparse.ArgumentParser)
    options = vars(parser.parse_args(["--run"])).keys() - {*COMMANDS}
    assert options - APPLICABLE.keys() == {*pipeline.pipeline_func.__annotations__} - {"return"}
    assert VALUES.keys() - {"gate"} == APPLICABLE.keys() <= options


def test_all_that_do_not_go_are_told_at_once_though_they_have_their_default_values(command) -> None:
    ended = command("--submit", "--plain", "--runs-dir", "runs", "--output=compiled/e2e.yaml", "--timeout=0")
    assert ended.code == 2
    assert [line.removeprefix("error: ").split(" goes with ")[0] for line in ended.err] == [
        "--output",
        "--plain",
        "--runs-dir",
        "--timeout",
    ]
    assert ended.err[-1].endswith("goes with --submit --wait or --check: without --wait nothing is waited for")


def test_two_tokens_are_one_too_many(command) -> None:
    ended = command("--submit", "--host", "http://127.0.0.1:9", "--token", "x", "--token-file", "y")
    assert (ended.code, ended.err) == (2, ["error: --token and --token-file are two tokens; give one"])


@pytest.mark.parametrize("seconds", ["nan", "-1"])
@pytest.mark.parametrize("begin", [["--check"], ["--submit", "--wait", "--host", "http://127.0.0.1:9"]])
def test_a_timeout_that_is_none(begin: list[str], seconds: str, command) -> None:
    ended = command(*begin, f"--timeout={seconds}")
    assert ended.code == 2
    assert ended.err[0].startswith(f"error: timeout = {seconds}: must be 0 ")


def test_numbers_that_kfp_would_change_are_refused(command) -> None:
    ended = command("--run", "--epochs", str(2**53 + 1))
    assert ended.code == 2
    (problem,) = ended.err
    assert problem.startswith("error: epochs = 9007199254740993: KFP hands on numbers up to 9,007,199,254,740,992 ")
