"""With which command each option goes. One that does nothing is refused: whoever gave it believes that it does."""

import argparse
from collections.abc import Collection, Iterable

from kfp_image_classification.components.step.errors import InvalidInput

COMMANDS = ("run", "compile", "submit", "check")
# What is not here is a parameter of the pipeline, for every command that runs it or looks whether it would run.
APPLICABLE = {
    "serve": ("run",),
    "runs_dir": ("run",),
    "verbose": ("run",),
    "plain": ("run",),
    "no_cache": ("run", "submit"),
    "output": ("compile",),
    "host": ("submit",),
    "experiment": ("submit",),
    "run_name": ("submit",),
    "token_file": ("submit",),
    "token": ("submit",),
    "ca_cert": ("submit",),
    "wait": ("submit",),
    "namespace": ("submit", "check"),
    "timeout": ("submit", "check"),
    "service_account": ("check",),
}
PARAMETERS = ("run", "submit", "check")


def given_options(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, set[str]]:
    """Parses the command line; also returns which options are in it, be it with their default value."""
    arguments = parser.parse_args()
    absent = object()
    told = parser.parse_args(namespace=argparse.Namespace(**dict.fromkeys(vars(arguments), absent)))
    return arguments, {name for name, value in vars(told).items() if value is not absent}


def check_applicable(given: Collection[str]) -> None:
    """Looks whether all options that were given go with the command that was.

    Raises:
        InvalidInput: With each that does not, and the commands that it goes with.
    """
    (command,) = [name for name in COMMANDS if name in given]
    problems = [
        f"{_option(name)} goes with {_listed(goes_with)}, and not with --{command}"
        for name in sorted(given)
        if name not in COMMANDS and command not in (goes_with := APPLICABLE.get(name, PARAMETERS))
    ]
    if command == "submit" and "timeout" in given and "wait" not in given:
        problems.append("--timeout goes with --submit --wait or --check: without --wait nothing is waited for")
    if {"token", "token_file"} <= {*given}:
        problems.append("--token and --token-file are two tokens; give one")
    if problems:
        raise InvalidInput(problems)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _listed(commands: Iterable[str]) -> str:
    *most, last = map(_option, commands)
    return f"{', '.join(most)} and {last}" if most else last
