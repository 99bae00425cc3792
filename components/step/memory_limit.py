"""How much memory this process and those that it starts may have: what there is, and the limits of control groups."""

from pathlib import Path

import psutil

from kfp_image_classification.components.step.control_groups import limiting_groups

_FILES = ("memory.max", "memory.limit_in_bytes")  # version 2, version 1


def usable_memory(root: Path = Path("/"), installed: int | None = None) -> int:
    """Bytes that may be used before the kernel ends a process.

    Args:
        root: Where `/proc` and the mounted control groups are.
        installed: Bytes of the machine; by default, as the kernel tells.
    """
    limits = [psutil.virtual_memory().total if installed is None else installed]
    for folder in limiting_groups("memory", root):
        for name in _FILES:
            try:
                limits.append(int((folder / name).read_text(encoding="ascii")))
            except (OSError, ValueError):  # "max", or a group without this controller
                continue
    return min(limits)
