"""Kustomizations as kubectl builds them."""

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml
from skips import Need, skip, tool

OLDEST_MINOR = 21


def kustomized(folder: Path) -> list[dict[str, Any]]:
    """The objects that `kubectl apply -k FOLDER` sends."""
    kubectl = tool("kubectl")
    told = subprocess.run([kubectl, "version", "--client", "-o", "json"], capture_output=True, text=True, check=True)
    minor = json.loads(told.stdout)["clientVersion"]["minor"]
    if int(minor.rstrip("+")) < OLDEST_MINOR:
        skip(Need.SYSTEM, f"kubectl 1.{minor} has a kustomize of 2018, as Debian 12's; 1.{OLDEST_MINOR} is needed")
    result = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))
