"""Every step, the server and the workers settle their environment before they load what reads it."""

import re
from pathlib import Path

import pytest
from repository import REPOSITORY

STEPS = sorted((REPOSITORY / "components").glob("*/*component.py"))


@pytest.mark.parametrize("path", STEPS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_step_starts_so(path: Path) -> None:
    text = path.read_text()
    starts = re.search(r"\n    start_process\((tell_to_end)?\)\n", text)
    assert starts, f"{path} does not call start_process"
    early = text[: starts.start()]
    assert not re.search(r"import (tensorflow|keras|numpy)|reported\(", early)
