"""How many processors this process may keep busy: by its affinity, and by the limits of its control groups."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from kfp_image_classification.components.step.control_groups import limiting_groups


def usable_cores(root: Path = Path("/"), affinity: int | None = None) -> int:
    """The number of threads that compute at the same time without waiting for each other.

    A cpuset shows in the affinity. A quota may be a fraction: 1.5 CPUs are worth two threads, of which the kernel holds
    back a quarter, and one thread would leave a third of the CPUs unused. Java and Go round up, too. A limit on a group
    holds for all groups below it, so the least one counts. See `cpu.max` in
    https://docs.kernel.org/admin-guide/cgroup-v2.html; for version 1, https://docs.kernel.org/scheduler/sched-bwc.html.

    Args:
        root: Where `/proc` and the mounted control groups are.
        affinity: Processors on which this process may run; by default, as the kernel tells.
    """
    if affinity is None:
        affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Every quota on this process, in CPUs."""
    for folder in limiting_groups("cpu", root):
        quota = _quota(folder)
        if quota is not None:
            yield quota


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
        limit = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", or a group without this controller
        return None
    return limit if limit > 0 else None  # -1 is no limit in version 1
