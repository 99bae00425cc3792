"""What a local run tells at its end."""

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kfp_image_classification.components.contracts.measures import TITLES, MeasureName
from kfp_image_classification.components.select.leaderboard import Leaderboard, words_of
from kfp_image_classification.pipelines.runner.commands import ask_command, serve_command, tensorboard_command
from kfp_image_classification.pipelines.runner.local.run_record import RunRecord


def print_summary(record: RunRecord, keeps_serving: bool) -> None:
    """Prints where the report lies, the models, where the time went, and a command that asks the model."""
    assert record.ranking is not None
    # Paths and commands must stay whole to be copied, so nothing is wrapped, and brackets in them are no markup.
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    shown, python = _relative(record.directory), _relative(Path(sys.executable))
    console.print()
    console.print(_titled("report", f"{shown}/report.html"))
    console.print()
    console.print(_models(record.ranking))
    console.print(record.ranking.decision)
    console.print()
    console.print(_times(record))
    for sentence in record.restarts:
        console.print(sentence)
    console.print(_titled("model", f"{shown}/model"))
    console.print(_titled("logs", f"{shown}/run.log"))
    console.print(_titled("curves", tensorboard_command(shown / "tensorboard", python)))
    endpoint = record.endpoint
    if endpoint is None:
        return
    console.print()
    console.print(
        f"The service was shown a {endpoint.example_label} and answered {endpoint.example_answer} "
        f"({endpoint.example_probability:.1%} sure)."
    )
    if record.latency:
        console.print(
            f"It answers one image in {record.latency.p50:.1f} ms (median of {record.latency.requests} requests; "
            f"p99 {record.latency.p99:.1f} ms), on this machine, without a network."
        )
    if not endpoint.pid:
        console.print("KServe serves it. Ask it:")
    elif keeps_serving:
        console.print("It serves until you press Ctrl-C. Ask it from another terminal:")
    else:
        console.print("It is stopped now. Serve the model again, and ask it from another terminal:")
        console.print(f"  {serve_command(endpoint, shown / 'model', python)}")
    console.print(f"  {ask_command(endpoint, shown / 'service')}")


def _titled(title: str, text: str) -> Text:
    return Text.assemble((title, "bold"), " " * (8 - len(title)), text)


def _models(ranking: Leaderboard) -> Table:
    table = Table(title="Models", title_justify="left")
    table.add_column("model")
    measures: list[MeasureName] = ["accuracy"] if ranking.select_by == "accuracy" else [ranking.select_by, "accuracy"]
    headings = [*(f"validation {TITLES[measure]}" for measure in measures), "test accuracy", "parameters"]
    for heading in headings:
        table.add_column(heading, justify="right")
    for candidate in ranking.candidates:
        chosen = candidate is ranking.best and ranking.passed
        table.add_row(
            candidate.name,
            *(words_of(measure, candidate.validation) for measure in measures),
            words_of("accuracy", candidate.test),
            f"{candidate.parameters:,}",
            style="bold green" if chosen else None,
        )
    if champion := ranking.champion:
        scores = [words_of(measure, champion.validation) for measure in measures]
        style = "bold green" if ranking.serves_champion else None
        table.add_row(f"deployed: {champion.name}", *scores, "-", f"{champion.parameters:,}", style=style)
    return table


def _times(record: RunRecord) -> Table:
    title = "Where the time went (models overlap; `start` is the loading of TensorFlow, `wait` that for free cores)"
    table = Table(title=title, title_justify="left", show_footer=True)
    table.add_column("stage", footer="whole run")
    table.add_column("seconds", justify="right", footer=f"{record.seconds:.1f}")
    table.add_column("of which")
    for step in sorted(record.steps, key=lambda step: step.started or 0):
        if step.state == "cached":
            table.add_row(step.title, "from cache")
        elif step.seconds is not None:
            table.add_row(step.title, f"{step.seconds:.1f}", ", ".join(f"{n} {s:.1f}" for n, s in step.phases.items()))
    return table


def _relative(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
