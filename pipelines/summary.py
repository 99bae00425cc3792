"""What a local run tells at its end."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from components.deploy.endpoint import REQUEST_FILE, Endpoint
from components.select.leaderboard import Leaderboard


@dataclass(frozen=True)
class StageTime:
    """How long a step took from the start of its process; None when it came from the cache."""

    stage: str
    seconds: float | None
    details: str = ""


def print_summary(
    directory: Path,
    ranking: Leaderboard,
    endpoint: Endpoint | None,
    times: Sequence[StageTime],
    total_seconds: float,
    keeps_serving: bool,
) -> None:
    """Prints the models, where the time went, where things lie, and a command that asks the model."""
    # Paths and commands must stay whole to be copied, so nothing is wrapped.
    console = Console(highlight=False, soft_wrap=True)
    console.print()
    console.print(_models(ranking))
    console.print(ranking.decision)
    console.print()
    console.print(_times(times, total_seconds))
    shown = _relative(directory)
    console.print(f"[bold]pages[/]  {shown}/pages/leaderboard.html and others beside it")
    console.print(f"[bold]model[/]  {shown}/model")
    console.print(f"[bold]logs[/]   {shown}/run.log")
    if endpoint is None:
        return
    console.print()
    console.print(
        f"The service was shown a {endpoint.example_label} and answered {endpoint.example_answer} "
        f"({endpoint.example_probability:.1%} sure)."
    )
    ask = (
        f"curl -s --retry 60 --retry-connrefused --retry-delay 1 -H 'Content-Type: application/json' "
        f"-d @{shlex.quote(str(shown / 'service' / REQUEST_FILE))} {endpoint.predict_url}"
    )
    if keeps_serving:
        console.print("It serves until you press Ctrl-C. Ask it from another terminal:")
        console.print(f"  {ask}")
    else:
        port = endpoint.url.rsplit(":", 1)[1]
        console.print("It is stopped now. Serve the model again, and ask it from another terminal:")
        console.print(
            f"  {_relative(Path(sys.executable))} -m components.deploy.server --model_name={endpoint.name} "
            f"--model_dir={shlex.quote(str(shown / 'model'))} --host=127.0.0.1 --http_port={port}"
        )
        console.print(f"  {ask}")


def _models(ranking: Leaderboard) -> Table:
    table = Table(title="Models", title_justify="left")
    table.add_column("model")
    for heading in ("validation accuracy", "test accuracy", "parameters", "images/s"):
        table.add_column(heading, justify="right")
    for candidate in ranking.candidates:
        chosen = candidate is ranking.best and ranking.passed
        table.add_row(
            candidate.name,
            f"{candidate.val_accuracy:.2%}",
            f"{candidate.test_accuracy:.2%}",
            f"{candidate.parameters:,}",
            f"{candidate.images_per_second:,.0f}",
            style="bold green" if chosen else None,
        )
    return table


def _times(times: Sequence[StageTime], total_seconds: float) -> Table:
    title = "Where the time went (steps of two models overlap; `start` is the loading of TensorFlow)"
    table = Table(title=title, title_justify="left", show_footer=True)
    table.add_column("stage", footer="whole run")
    table.add_column("seconds", justify="right", footer=f"{total_seconds:.1f}")
    table.add_column("of which")
    for time in times:
        table.add_row(time.stage, "from cache" if time.seconds is None else f"{time.seconds:.1f}", time.details)
    return table


def _relative(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
