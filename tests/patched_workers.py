"""Real workers in which a module is another than it is: for what cannot be had from outside, a GPU, say, or a stall."""

import os
from pathlib import Path

import pytest

_WORKER = "kfp_image_classification.components.train.worker"
# Python loads sitecustomize at its start.
_ON_IMPORT = """
import importlib.util, sys

class Finder:
    def find_spec(self, wanted, path=None, target=None):
        if wanted != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(wanted)
        load = spec.loader.exec_module
        def exec_module(loaded):
            load(loaded)
            exec({code!r}, {{"loaded": loaded}})
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


def patch_workers(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, code: str) -> None:
    """Runs code in each process that loads a module of the worker, as soon as it has; the code calls it `loaded`."""
    started_with(folder, monkeypatch, _ON_IMPORT.format(module=f"{_WORKER}.{module}", code=code))


def started_with(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Runs code at the start of each Python process, which finds the modules of a folder, too."""
    (folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
