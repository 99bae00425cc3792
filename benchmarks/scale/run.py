"""`make bench-scale`: what a step's sum costs with 2 to 16 workers, each with a link of its own."""

import argparse
import contextlib
import itertools
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.table import Table

from benchmarks.scale.network import DELAY_SECONDS, LINKS, Network, NotPossible, network
from benchmarks.scale.prediction import Costs, Row, Step, larger
from benchmarks.scale.worker import sums_of
from benchmarks.train.run import pinned, rates
from kfp_image_classification.components.train.worker_environment import WORKER_ENVIRONMENT

BATCH = 64
SHAPES = {"cnn_small": (28, 28, 1), "cnn": (32, 32, 3), "resnet": (32, 32, 3)}
DTYPES = ("float32", "bfloat16")
EXCHANGES = ("sockets", "ring")
CORES = sorted(os.sched_getaffinity(0))
RESULTS = Path(__file__).with_name("results.json")
KEY = ("workers", "link", "model", "dtype", "exchange")
# Importing TensorFlow in sixteen processes takes its time.
START_SECONDS = 300.0
MEASURE_SECONDS = 120.0
STEPS = (6, 150)
GOALS = [
    ({"model": "cnn_small", "link": "none", "dtype": "float32"}, 0.88),
    ({"model": "cnn_small", "link": "10g", "dtype": "bfloat16"}, 0.75),
    ({"model": "resnet", "link": "none", "dtype": "float32"}, 0.95),
    ({"model": "resnet", "link": "10g", "dtype": "float32"}, 0.95),
]


@dataclass(frozen=True)
class Model:
    """A model's step without others: seconds that it computes, gradients, and statistics that are averaged."""

    name: str
    seconds: float
    gradients: int
    statistics: int


def computed(name: str, seconds: float) -> Model:
    """Measures a step on a constant batch, on one core, beside another one.

    Of many, one of the faster counts: what else runs on a machine only makes steps slower.
    """
    command = ["benchmarks.train.constant_batch", "--model", name, "--batch-size", str(BATCH), "--our-adam"]
    command += ["--shape", *map(str, SHAPES[name]), "--seconds", str(seconds)]
    beside = min(2, len(CORES))
    outputs = pinned([command] * beside, [WORKER_ENVIRONMENT] * beside)
    sizes = next(line.split()[1:] for line in outputs[0].splitlines() if line.startswith("values "))
    faster = statistics.quantiles(itertools.chain.from_iterable(rates(output) for output in outputs), n=10)[-2]
    return Model(name, BATCH / faster, int(sizes[0]), int(sizes[1]))


class Workers:
    """Processes in their namespaces, each pinned to a core that several may share."""

    def __init__(self, exchange: str, where: Network, values: int, complaints: BinaryIO) -> None:
        self._processes = []
        self._complaints = complaints
        for index in range(len(where.addresses)):
            command = [sys.executable, "-m", "benchmarks.scale.worker", "--exchange", exchange]
            command += ["--index", str(index), "--core", str(CORES[index % len(CORES)]), "--values", str(values)]
            self._processes.append(
                subprocess.Popen(
                    where.inside(index, [*command, "--addresses", *where.addresses]),
                    env={**_without_proxies(), **WORKER_ENVIRONMENT, "TF_CPP_MIN_LOG_LEVEL": "3"},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._complaints,
                    process_group=0,  # Ctrl-C is this process' to notice
                )
            )

    def answers(self, seconds: float) -> list[dict[str, Any]]:
        """What each says next.

        Raises:
            RuntimeError: When one says nothing for too long, or is gone.
        """
        found = []
        for index, process in enumerate(self._processes):
            assert process.stdout
            line = process.stdout.readline() if select.select([process.stdout], [], [], seconds)[0] else b""
            if not line:
                self._complaints.seek(0)
                said = self._complaints.read().decode(errors="replace")[-2000:]
                raise RuntimeError(
                    f"worker {index} of {len(self._processes)} failed, or said nothing for {seconds:g} s\n{said}"
                )
            found.append(json.loads(line))
        return found

    def step_seconds(self, task: dict[str, Any]) -> float:
        """Measures steps."""
        for process in self._processes:
            assert process.stdin
            process.stdin.write(json.dumps(task).encode() + b"\n")
            process.stdin.flush()
        return statistics.median(statistics.median(answer["steps"]) for answer in self.answers(MEASURE_SECONDS))

    def end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()


@contextlib.contextmanager
def started(exchange: str, where: Network, values: int) -> Iterator[Workers]:
    """Starts workers, and ends them whatever happens."""
    with tempfile.TemporaryFile() as complaints:
        workers = Workers(exchange, where, values, complaints)
        try:
            workers.answers(START_SECONDS)
            yield workers
        finally:
            workers.end()


def _without_proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def measure(
    workers: int, exchange: str, models: Sequence[Model], links: Sequence[str], dtypes: Sequence[str], seconds: float
) -> list[Row]:
    """Measures all settings with the same processes.

    Time is dilated by the workers that a core has: what a step computes takes so many times longer, a link carries so
    much less, and what is measured is divided by it. So the CPU that sums take counts as if each worker had a core.
    """
    slower = max(1.0, workers / len(CORES))
    rows = []
    with contextlib.ExitStack() as stack:
        where = stack.enter_context(network(workers))
        them = stack.enter_context(started(exchange, where, max(one.gradients + one.statistics for one in models)))
        for link in dict.fromkeys(("none", *links)):  # by which the model's costs are known
            where.shape(LINKS[link], slower)
            for model, dtype in itertools.product(models, dtypes):
                wait = model.seconds * slower
                task = {"gradients": model.gradients, "statistics": model.statistics, "dtype": dtype, "wait": wait}
                first = them.step_seconds({**task, "steps": 2})
                steps = int(min(STEPS[1], max(STEPS[0], seconds / first)))
                step = them.step_seconds({**task, "steps": steps}) / slower
                rows.append(
                    {
                        "workers": workers,
                        "link": link,
                        "model": model.name,
                        "dtype": dtype,
                        "exchange": exchange,
                        "images_per_second": round(workers * BATCH / step, 1),
                        "efficiency": round(model.seconds / step, 4),
                        "gradients": model.gradients,
                        "statistics": model.statistics,
                        "delay_seconds": DELAY_SECONDS if where.has_delay else 0.0,
                    }
                )
                print(_said(rows[-1]), flush=True)
    return rows


def _said(row: Row) -> str:
    return (
        f"{row['workers']:2} workers, {row['exchange']}, link {row['link']}, {row['model']}, {row['dtype']}: "
        f"{row['images_per_second']:,.0f} images/s, efficiency {row['efficiency']:.2f}"
    )


def step_of(row: Row) -> Step:
    seconds = BATCH * row["workers"] / row["images_per_second"]
    return Step(
        workers=row["workers"],
        computation=seconds * row["efficiency"],
        sums=tuple(sums_of(row)),
        exchange=row["exchange"],
        link=row["link"],
        latency=row["delay_seconds"],
    )


def costs_of(rows: Sequence[Row]) -> dict[str, Costs]:
    """What a message and a byte cost, of each exchange and type, by its rows without limited links."""
    found = {}
    for kind in sorted({_kind(row) for row in rows if LINKS[row["link"]] is None}):
        own = [row for row in rows if _kind(row) == kind and LINKS[row["link"]] is None]
        seconds = [BATCH * row["workers"] / row["images_per_second"] for row in own]
        found[kind] = Costs.of([step_of(row) for row in own], seconds)
    return found


def _kind(row: Row) -> str:
    return f"{row['exchange']} {row['dtype']}"


def merged(before: Sequence[Row], after: Sequence[Row]) -> list[Row]:
    """Rows of earlier runs stay unless they were measured anew."""
    found = {tuple(row[name] for name in KEY): row for row in (*before, *after)}
    orders: list[list[Any]] = [[], list(LINKS), list(SHAPES), list(DTYPES), list(EXCHANGES)]
    return sorted(
        found.values(),
        key=lambda row: (
            row["workers"],
            *(order.index(row[name]) for order, name in zip(orders[1:], KEY[1:], strict=True)),
        ),
    )


def predicted(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with what the model says."""
    costs = costs_of(rows)
    return [
        {**row, "predicted": round(row["workers"] * BATCH / costs[_kind(row)].step_seconds(step_of(row)), 1)}
        for row in rows
    ]


def efficiencies(rows: Sequence[Row]) -> Table:
    counts = sorted({row["workers"] for row in rows})
    table = Table("exchange", "model", "dtype", "link", *(f"{count} workers" for count in counts))
    table.title = "images/s over those of as many workers that do not talk (what the model says)"
    settings = dict.fromkeys(
        (row["exchange"], row["model"], row["dtype"], row["link"])
        for row in sorted(rows, key=lambda row: (EXCHANGES.index(row["exchange"]), list(SHAPES).index(row["model"])))
    )
    cells = {(row["exchange"], row["model"], row["dtype"], row["link"], row["workers"]): _compared(row) for row in rows}
    for setting in settings:
        table.add_row(*setting, *(cells.get((*setting, count), "") for count in counts))
    return table


def _compared(row: Row) -> str:
    predicted_efficiency = row["efficiency"] * row["predicted"] / row["images_per_second"]
    return f"{row['efficiency']:.2f} ({predicted_efficiency:.2f})"


def outlook(rows: Sequence[Row]) -> Table:
    """What 32 workers, or a larger batch, would bring, by the model."""
    table = Table("exchange", "model", "dtype", "link", "16 workers", "32 workers", "32 workers, batch 256")
    table.title = "efficiency by the model"
    costs = costs_of(rows)
    most = max(row["workers"] for row in rows)
    for row in rows:
        if row["workers"] == most:
            step, own = step_of(row), costs[_kind(row)]
            cases = [larger(step, 16), larger(step, 32), larger(step, 32, 4)]
            names = (row[name] for name in ("exchange", "model", "dtype", "link"))
            table.add_row(*names, *(f"{own.efficiency(case):.2f}" for case in cases))
    return table


def verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """Whether the goals are met, and how far off the model is."""
    for setting, goal in GOALS:
        for row in rows:
            if row["exchange"] == "sockets" and row["workers"] in (8, 16) and setting.items() <= row.items():
                yield f"{'met' if row['efficiency'] >= goal else 'MISSED'}, at least {goal}: {_said(row)}"
    off = [abs(row["predicted"] / row["images_per_second"] - 1) for row in rows]
    yield f"the model is off by {max(off):.0%} at most, {statistics.median(off):.0%} in the middle"
    for row, error in zip(rows, off, strict=True):
        if error > 0.2:
            yield f"off by {error:.0%}: {_said(row)}, the model says {row['predicted']:,.0f}"
    for kind, costs in costs_of(rows).items():
        yield f"{kind}: {costs.message * 1e3:.3f} ms a message, {costs.byte * 1e9:.2f} ms a MB"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale.run", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--links", nargs="+", choices=LINKS, default=list(LINKS))
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--exchanges", nargs="+", choices=EXCHANGES, default=list(EXCHANGES))
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement, about")
    parser.add_argument(
        "--step-ms", type=float, nargs="+", help="what a step of each model computes, to continue another run"
    )
    parser.add_argument("--show", action="store_true", help="only show what was measured before")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows: list[Row] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    if not arguments.show:
        try:
            with network(2):
                pass
            models = [computed(name, 1 if arguments.step_ms else 6) for name in arguments.models]
            if arguments.step_ms:
                known = zip(models, arguments.step_ms, strict=True)
                models = [replace(model, seconds=milliseconds / 1e3) for model, milliseconds in known]
            for model in models:
                print(f"{model.name}: {model.seconds * 1e3:.2f} ms a step, {model.gradients:,} gradients", flush=True)
            for workers, exchange in itertools.product(arguments.workers, arguments.exchanges):
                new = measure(workers, exchange, models, arguments.links, arguments.dtypes, arguments.seconds)
                rows = predicted(merged(rows, new))
                RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        except NotPossible as error:
            sys.exit(f"error: bench-scale cannot run here: {error}")
        except RuntimeError as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            sys.exit(130)
    console = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
    for shown in (efficiencies(rows), outlook(rows), *verdicts(rows)):
        console.print(shown)


if __name__ == "__main__":
    main()
