"""A measurement in a process of its own, in which nothing is left of another."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def child(module: str, arguments: list[str], environment: Mapping[str, str]) -> Any:
    """Runs a module of the benchmarks with some added variables; what its last line says, as JSON."""
    command = [sys.executable, "-m", module, *arguments]
    variables = {**os.environ, **environment}
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, encoding="utf-8")
    if ended.returncode:
        sys.exit(ended.stderr)
    return json.loads(ended.stdout.splitlines()[-1])
