"""Launchers run a training job somewhere: one file a backend, one interface for all."""

from kfp_image_classification.components.train.launchers.base import Launcher, Verdict
from kfp_image_classification.components.train.launchers.local import LocalLauncher

__all__ = ["Launcher", "LocalLauncher", "Verdict"]
