"""A short form of `make bench-soak`'s model server part: thousands of all kinds of requests while versions change."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.soak.serving import CLIENTS, Sample, Soak, soak

REQUESTS, RELOADS = 6000, 12


def test_a_server_stays_as_it_began(trained: SimpleNamespace, tmp_path: Path) -> None:
    model = Path(shutil.copytree(trained.model, tmp_path / "model"))
    lived = soak(model, REQUESTS, RELOADS, tmp_path / "server.log")
    assert lived.reloads == RELOADS
    assert lived.samples[-1].requests == REQUESTS
    assert lived.problems(least_speed=0) == [], "speed is measured by the benchmark: tests share their machine"
    assert "internal error" not in (tmp_path / "server.log").read_text()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"threads": 6}, "threads grew from 10 to 16"),
        ({"files": 30}, "files grew from 20 to 50"),
        ({"maps": 100}, "maps grew from 300 to 400"),
        ({"rss": 100 << 20}, "memory grew from 100 to 200 MiB in the second half"),
        ({"seconds": 3.0}, "the last requests came at 0.25 of the speed of the first"),
    ],
)
def test_what_grows_is_told(change: dict[str, float], problem: str | None) -> None:
    steady = {"cpu_seconds": 0.0, "threads": 10, "files": 20, "maps": 300, "rss": 100 << 20}
    samples = [Sample(requests=100 * part, seconds=float(part), **steady) for part in range(4)]
    last = {"requests": 400, "seconds": 4.0, **steady}
    lived = Soak([*samples, Sample(**{name: value + change.get(name, 0) for name, value in last.items()})], 0, [])
    assert lived.problems() == ([problem] if problem else [])


def test_failed_requests_are_told() -> None:
    sample = {"cpu_seconds": 0.0, "threads": 1, "files": 1, "maps": 1, "rss": 1}
    samples = [Sample(requests=part, seconds=float(part), **sample) for part in range(3)]
    assert Soak(samples, 0, ["V1: 500"] * CLIENTS).problems() == ["4 requests failed, such as V1: 500"]
