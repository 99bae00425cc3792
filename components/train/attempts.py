"""The attempts of a job: each start of its workers, as the chief of that start tells it while it goes on.

A chief that was taken for dead can still be there and write, on a node that nobody reaches, say. So the newest attempt
alone owns the job's folder: a chief looks whether it is still the newest before anything it wrote gets its name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from kfp_image_classification.components.step.whole_file import create_whole, write_whole
from kfp_image_classification.components.train.job_files import ATTEMPTS_DIRECTORY

# Until the training goes on; a restart has them again.
GETTING_READY = ("start", "data", "connect", "build")


class Attempt(BaseModel):
    """One start of a job's workers.

    Attributes:
        number: From 1.
        started: When its chief's process started, in seconds of the Unix clock.
        first_step: Steps that the job had behind it when the training went on.
        step: Steps that it had when this was written last.
        told: When that was, in seconds of the Unix clock.
        seconds: Wall-clock seconds by phase until then.
    """

    number: int
    started: float
    first_step: int = 0
    step: int = 0
    told: float = 0.0
    seconds: dict[str, float] = Field(default_factory=dict)


class Superseded(Exception):
    """A newer attempt owns the job's folder."""


class OwnAttempt:
    """The attempt of this process, which is its job's chief."""

    def __init__(self, directory: Path, started: float) -> None:
        """Takes the next number.

        Args:
            directory: The job's folder.
            started: When this process started, in seconds of the Unix clock.
        """
        self._directory = directory
        (directory / ATTEMPTS_DIRECTORY).mkdir(parents=True, exist_ok=True)
        number = 1 + max(_numbers(directory), default=0)
        while not create_whole(_path(directory, number), Attempt(number=number, started=started).model_dump_json()):
            number += 1
        self._attempt = Attempt(number=number, started=started)

    @property
    def number(self) -> int:
        return self._attempt.number

    def check(self) -> None:
        """Has to be asked before something gets its name in the job's folder.

        Raises:
            Superseded: When another attempt owns the folder.
        """
        if _path(self._directory, self.number + 1).exists():
            raise Superseded(
                f"attempt {self.number + 1} trains in {self._directory}: this one, {self.number}, was taken for lost"
            )

    def tell(self, **news: Any) -> None:
        """Writes down how far this attempt is: any of `Attempt`'s attributes.

        Raises:
            Superseded: When another attempt owns the folder.
        """
        self.check()
        self._attempt = self._attempt.model_copy(update=news)
        write_whole(_path(self._directory, self.number), self._attempt.model_dump_json())


@dataclass(frozen=True)
class Restart:
    """Why a job started again, and what that cost.

    Attributes:
        reason: In words.
        seconds: From the last that was heard of the attempt before until the training was where that had come to:
            noticing, starting, and the steps that were taken again.
        steps: How many were taken again.
    """

    reason: str
    seconds: float
    steps: int

    @property
    def words(self) -> str:
        return f"{self.reason or 'nobody told why'} ({self.seconds:.1f} s, {self.steps} steps taken again)"


@dataclass(frozen=True)
class JobTimes:
    """Where a job's time went, with all of its attempts.

    Attributes:
        seconds: By phase, in order; `wait` for cores or pods, `restarts` for all that restarts cost. They add up to the
            time from the job's submission to its end.
        restarts: Each of them.
    """

    seconds: dict[str, float]
    restarts: list[Restart]


def note_end(directory: str | Path, reason: str, overrides: bool = True) -> None:
    """Writes down why the newest attempt ended.

    Args:
        directory: The job's folder.
        reason: In words; its first line counts.
        overrides: Whether this is a launcher's word, which counts more than that of a worker that only lost its peer.
    """
    numbers = _numbers(Path(directory))
    if numbers and reason:
        write = write_whole if overrides else create_whole
        write(_path(Path(directory), max(numbers)).with_suffix(".end"), reason.splitlines()[0])


def read_attempts(directory: Path) -> list[Attempt]:
    """Reads all attempts of a job, in their order."""
    attempts = []
    for number in sorted(_numbers(directory)):
        try:
            attempts.append(Attempt.model_validate_json(_path(directory, number).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return attempts


def job_times(directory: Path, submitted: float | None = None, ended: float | None = None) -> JobTimes:
    """Adds up where the time went between a job's submission and its end.

    Args:
        directory: The job's folder.
        submitted: In seconds of the Unix clock; None for the start of the first attempt. Of attempts before that the
            restarts are told, their time is not.
        ended: In seconds of the Unix clock; None for what the last attempt told last.
    """
    attempts = read_attempts(directory)
    if not attempts:
        return JobTimes({}, [])
    submitted = attempts[0].started if submitted is None else submitted
    ended = attempts[-1].told if ended is None else ended
    pairs = list(pairwise(attempts))
    costs = [_cost(before, after, submitted) for before, after in pairs]
    restarts = [
        Restart(_reason(directory, before.number), sum(cost.values()), max(0, before.step - after.first_step))
        for (before, after), cost in zip(pairs, costs, strict=True)
    ]
    own = [attempt for attempt in attempts if attempt.told > submitted]
    seconds = _sum([attempt.seconds for attempt in own])
    lost = _sum([cost for (_, after), cost in zip(pairs, costs, strict=True) if after in own])
    for name in lost:
        if name in seconds:
            seconds[name] = max(0.0, seconds[name] - lost[name])
    if own:
        seconds = {"wait": 0.0 if pairs and own[0] is not attempts[0] else own[0].started - submitted, **seconds}
    if lost:
        seconds["restarts"] = sum(lost.values())
    seconds["end"] = max(0.0, ended - submitted - sum(seconds.values()))
    return JobTimes({name: value for name, value in seconds.items() if value > 0}, restarts)


def _cost(before: Attempt, after: Attempt, submitted: float) -> dict[str, float]:
    """What a restart cost, by phase; `noticing` is the time between the two attempts."""
    since = max(before.told, submitted) if after.started > submitted else before.told
    cost = {"noticing": max(0.0, after.started - since)}
    cost |= {name: after.seconds[name] for name in GETTING_READY if name in after.seconds}
    taken, repeated = before.step - before.first_step, before.step - after.first_step
    if taken > 0 and repeated > 0:
        cost["train"] = before.seconds.get("train", 0.0) * min(1.0, repeated / taken)
    return cost


def _sum(all_seconds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for seconds in all_seconds:
        for name, value in seconds.items():
            total[name] = total.get(name, 0.0) + value
    return total


def _reason(directory: Path, number: int) -> str:
    try:
        return _path(directory, number).with_suffix(".end").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _numbers(directory: Path) -> list[int]:
    return [int(path.stem) for path in (directory / ATTEMPTS_DIRECTORY).glob("*.json") if path.stem.isdecimal()]


def _path(directory: Path, number: int) -> Path:
    return directory / ATTEMPTS_DIRECTORY / f"{number:04}.json"
