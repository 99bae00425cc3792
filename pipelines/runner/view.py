"""What a person sees while a run goes on: plain lines, or a live picture on a terminal."""

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from kfp_image_classification.pipelines.runner.local.progress import Progress


class View(Protocol):
    """Shows a run until it is left or stopped."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, line: str) -> None:
        """Shows a line that stays; nothing after `stop`."""

    def stop(self) -> None:
        """Leaves the terminal as it was."""


class PlainView:
    """One line after the other: for files, pipes and screen readers."""

    def __init__(self, terminal: TextIO | None = None) -> None:
        self._terminal = terminal or sys.stdout
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def show(self, line: str) -> None:
        if not self._stopped:
            self._terminal.write(line + "\n")
            self._terminal.flush()

    def stop(self) -> None:
        self._stopped = True


def view_for(terminal: TextIO, progress: Progress, parameters: Mapping[str, Any], plain: bool, verbose: bool) -> View:
    """A live view on a terminal that can move its cursor, unless plain lines are asked for."""
    from rich.console import Console

    from kfp_image_classification.pipelines.runner.local.live_view import LiveView

    console = Console(file=terminal, highlight=False, markup=False, emoji=False)
    if plain or not console.is_terminal or console.is_dumb_terminal:
        return PlainView(terminal)
    return LiveView(console, progress, parameters, verbose)
