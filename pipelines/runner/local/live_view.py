"""The live view of a run: one row a step, redrawn in place, with what the training is doing."""

import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kfp_image_classification.pipelines.runner.local.progress import Progress, RunningStep
from kfp_image_classification.pipelines.runner.local.training_pace import TrainingPace

REFRESHES_PER_SECOND = 4
# From these widths on, in columns, there is a bar of that width.
BAR_WIDTHS = {72: 8, 100: 20}
_SYMBOLS = {"done": ("✓", "green"), "cached": ("↺", "cyan"), "failed": ("✗", "bold red"), "waiting": ("·", "dim")}


class LiveView:
    """Redraws itself from `Progress` and the files of the training jobs; lines to be kept scroll by above it."""

    def __init__(self, console: Console, progress: Progress, parameters: Mapping[str, Any], verbose: bool) -> None:
        """Draws nothing yet.

        Args:
            console: A terminal.
            progress: Of the run.
            parameters: Of the pipeline.
            verbose: Whether the workers' lines are kept, too; the rows show what they say.
        """
        self._console = console
        self._progress = progress
        self._verbose = verbose
        self._epochs = int(parameters["epochs"])
        self._about = f"{parameters['dataset']}, {len(progress.models)} models, {parameters['workers']} workers each"
        self._spinner = Spinner("dots", style="cyan")
        self._stopped = False
        self._paces: dict[str, TrainingPace] = {}
        self._live = Live(
            get_renderable=lambda: self,
            console=console,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Removes the rows and gives the cursor back."""
        self._stopped = True
        self._live.stop()

    def show(self, line: str) -> None:
        """Keeps a line above the rows."""
        if self._stopped:
            return
        if self._verbose:
            self._console.print(Text(line))
        elif "] worker-" not in line:
            self._console.print(Text(line, style="red" if "] error: " in line else "dim"))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bar_width = max([width for columns, width in BAR_WIDTHS.items() if options.max_width >= columns], default=0)
        elapsed = Text(_clock(time.monotonic() - self._progress.started), style="bold")
        yield Text.assemble(elapsed, "  ", (self._about, "dim"), no_wrap=True, overflow="ellipsis")
        rows = Table.grid(padding=(0, 1), expand=True)
        rows.add_column(width=1)
        rows.add_column(no_wrap=True, overflow="ellipsis", max_width=min(24, options.max_width // 2 - 4))
        rows.add_column(no_wrap=True, justify="right", width=5)
        if bar_width:
            rows.add_column(width=bar_width)
        rows.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        steps = self._progress.steps
        room = (options.height or console.height) - 3
        shown = steps if len(steps) <= room else [step for step in steps if step.state in ("running", "failed")][:room]
        for step in shown:
            bar, activity = self._activity(step)
            rows.add_row(*self._named(step), *([bar] if bar_width else []), activity)
        yield rows
        if len(shown) < len(steps):
            others = Counter(step.state for step in steps if step not in shown)
            yield Text("  " + ", ".join(f"{count} {state}" for state, count in others.items()), style="dim")

    def _named(self, step: RunningStep) -> list[RenderableType]:
        if step.state == "running":
            seconds = time.monotonic() - step.started if step.started else 0
            return [self._spinner, Text(step.title, style="bold"), _clock(seconds)]
        symbol, style = _SYMBOLS[step.state]
        took = _clock(step.seconds) if step.seconds is not None else ""
        return [Text(symbol, style=style), Text(step.title, style="dim" if step.state == "waiting" else ""), took]

    def _activity(self, step: RunningStep) -> tuple[RenderableType, Text]:
        """A bar, where it is known how much is to do, and what is going on in words."""
        if step.state == "cached":
            return "", Text("from an earlier run", style="dim")
        if step.state != "running":
            return "", Text(step.told, style="dim")
        if step.stage == "train" and step.epoch_size and step.folder:
            if step.model not in self._paces:
                self._paces[step.model] = TrainingPace(step.folder / "job", self._epochs, *step.epoch_size)
            pace = self._paces[step.model].measured(time.monotonic())
            left = f"{_clock(pace.seconds_left)} left" if pace.seconds_left is not None else ""
            bar = ProgressBar(total=1, completed=pace.share, complete_style="cyan", finished_style="cyan")
            return bar, Text("  ".join(filter(None, [pace.phase, left, pace.details])))
        return "", Text(step.told.split(" | ")[-1])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
