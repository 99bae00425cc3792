"""Which cases of a test are slow ones."""

from collections.abc import Iterable
from typing import Any

import pytest


def most_slow(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """Cases of which all but a few are among the slow tests: alike, and together longer than the others."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else [case]), marks=() if case in quick else pytest.mark.slow)
        for case in cases
    ]
