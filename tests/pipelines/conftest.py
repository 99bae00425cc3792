import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from pipelines.command_line import main
from pipelines.e2e import e2e


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """Runs `pipelines/e2e.py` with some options: its exit `code`, and the lines of `out` and `err`."""

    def run(*options: str) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["e2e.py", *options])
        with pytest.raises(SystemExit) as ended:
            main(e2e)
        printed = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code, out=printed.out.splitlines(), err=printed.err.splitlines())

    return run
