"""What `make bench-scale` makes is gone afterwards, and what its model predicts follows from its costs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from repository import REPOSITORY
from skips import Need, skip, tool

from benchmarks.scale import network as scale_network
from benchmarks.scale.prediction import Costs, Step, larger
from benchmarks.scale.run import merged

HOLDER = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs these tests in the background ignores it
from benchmarks.scale.network import network
with network(2) as made:
    made.shape(1e9, 1.0)
    print("made", flush=True)
    time.sleep(60)
"""


def step(**changes: object) -> Step:
    of = {"workers": 8, "computation": 0.01, "sums": ((1000, "float32"),), "exchange": "sockets", "link": "none"}
    return Step(**{**of, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("workers", "exchange", "sums", "rounds"),
    [
        (2, "sockets", 1, 2),
        (8, "sockets", 1, 6),
        (9, "sockets", 1, 8),
        (8, "sockets", 2, 12),
        (2, "ring", 1, 2),
        (8, "ring", 1, 14),
    ],
)
def test_rounds(workers: int, exchange: str, sums: int, rounds: int) -> None:
    assert step(workers=workers, exchange=exchange, sums=((10, "float32"),) * sums).rounds == rounds


def test_bytes_and_the_link() -> None:
    assert step().bytes == 2 * 7 / 8 * 4000
    assert step(sums=((1000, "bfloat16"), (8, "float32"))).bytes == 2 * 7 / 8 * 2032
    assert step(link="1g").wire_seconds == pytest.approx(7000 * 8 / 1e9)
    assert step(link="1g", latency=1e-4).latency_seconds == pytest.approx(6e-4)
    assert (step().wire_seconds, step(latency=1e-4).latency_seconds) == (0, 0)


def test_costs_are_found_again() -> None:
    true = Costs(message=1e-4, byte=5e-10)
    steps = [step(workers=workers, sums=((size, "float32"),)) for workers in (2, 4, 8) for size in (10**4, 10**6)]
    found = Costs.of(steps, [true.step_seconds(one) for one in steps])
    assert (found.message, found.byte) == (pytest.approx(1e-4), pytest.approx(5e-10))


def test_no_cost_is_negative() -> None:
    steps = [step(workers=2), step(workers=16)]
    found = Costs.of(steps, [0.011, 0.0105])
    assert found.message >= 0
    assert found.byte >= 0


def test_a_larger_batch_and_fewer_bytes_are_more_efficient() -> None:
    costs, own = Costs(1e-4, 1e-9), step(link="1g", sums=((10**6, "float32"),))
    assert costs.efficiency(own) < costs.efficiency(larger(own, batch_factor=4))
    assert costs.efficiency(own) < costs.efficiency(step(link="1g", sums=((10**6, "bfloat16"),)))
    assert costs.efficiency(larger(own, workers=32)) < costs.efficiency(own)


def test_rows_of_an_earlier_run_stay_unless_measured_anew() -> None:
    row = {"workers": 8, "link": "none", "model": "cnn", "dtype": "float32", "exchange": "ring", "efficiency": 0.1}
    other = {**row, "workers": 2}
    assert merged([row], [{**row, "efficiency": 0.2}, other]) == [other, {**row, "efficiency": 0.2}]


def test_another_user_than_root_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(scale_network.NotPossible, match="run it as root"), scale_network.network(2):
        pass


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(scale_network.NotPossible, match="install iproute2"), scale_network.network(2):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_network(number: signal.Signals) -> None:
    tool("ip")
    tool("tc")
    try:
        with scale_network.network(1):
            pass
    except scale_network.NotPossible as error:
        skip(Need.SYSTEM, str(error))
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=REPOSITORY
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "made\n"
        assert len(namespaces(holder.pid)) == 3
        holder.send_signal(number)
        holder.wait(30)
    if number == signal.SIGKILL:  # the next one removes what it could not
        with scale_network.network(1):
            pass
    deadline = time.monotonic() + 10
    while namespaces(holder.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not namespaces(holder.pid)


def namespaces(owner: int) -> list[Path]:
    return list(Path("/run/netns").glob(f"kfpscale{owner}-*"))
