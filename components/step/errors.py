"""The two ways a stage fails, and how a step reports its end."""

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psutil
from pydantic import BaseModel, ValidationError

Options = TypeVar("Options", bound=BaseModel)

# Signs that a name may have, and that would break a message into lines, turn it round, or talk to the terminal.
_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class InvalidInput(ValueError):
    """A mistake in what the user gave. Every problem names the parameter, its value and what is allowed.

    Attributes:
        problems: One sentence a problem.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        told = [problems] if isinstance(problems, str) else list(problems)
        self.problems = [_UNSHOWN.sub(lambda sign: repr(sign[0])[1:-1], problem) for problem in told]
        super().__init__("; ".join(self.problems))


class StageFailed(RuntimeError):
    """A stage could not finish for a reason that its message explains in full."""


def checked(options: type[Options], **values: Any) -> Options:
    """Builds a stage's options from parameters.

    Raises:
        InvalidInput: With all the problems that the options' own validation found.
    """
    try:
        return options(**values)
    except ValidationError as error:
        raise InvalidInput(_sentence(problem) for problem in error.errors()) from None


def run_checks(checks: Iterable[Callable[[], object]]) -> None:
    """Runs every check, also when one before it failed, so that a user hears of everything at once.

    Raises:
        InvalidInput: With the problems of all checks, each told once.
    """
    problems: dict[str, None] = {}
    for check in checks:
        try:
            check()
        except InvalidInput as error:
            problems.update(dict.fromkeys(error.problems))
    if problems:
        raise InvalidInput(problems)


def _sentence(problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{name} = {problem['input']!r}: {message}" if name else message


@contextmanager
def reported(stage: str) -> Iterator[None]:
    """Ends a step: prints how long it took, or an error's own words, without a traceback, and exit code 1."""
    try:
        yield
        seconds = time.time() - psutil.Process().create_time()
        print(f"[{stage}] took {seconds:.1f} s", flush=True)
    except InvalidInput as error:
        _exit(stage, error.problems)
    except StageFailed as error:
        _exit(stage, [str(error)])


def _exit(stage: str, problems: Iterable[str]) -> None:
    for problem in problems:
        for line in problem.splitlines():
            print(f"[{stage}] error: {line}", flush=True)
    sys.exit(1)
