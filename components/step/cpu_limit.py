"""How many processors this process may keep busy: by its affinity, and by the limits of its control groups."""

import math
import os
from collections.abc import Iterator
from pathlib import Path


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
    for mount, group in _cpu_groups(root):
        for folder in [group, *group.parents]:
            if folder == mount or mount in folder.parents:
                quota = _quota(folder)
                if quota is not None:
                    yield quota


def _cpu_groups(root: Path) -> Iterator[tuple[Path, Path]]:
    """The hierarchies that limit CPUs: where each is mounted, and this process's own folder in it.

    In a container, what is mounted is often the container's own group alone, while `/proc/self/cgroup` tells its path
    on the node: then the mount itself is the group.
    """
    try:
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        memberships = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    paths = {}
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    for line in mounts:
        before, _, after = line.partition(" - ")
        mounted_root, mount_point = (field.encode().decode("unicode_escape") for field in before.split()[3:5])
        kind, _, options = after.split(maxsplit=2)
        # Version 2 has one hierarchy, whose line in /proc/self/cgroup names no controller.
        controller = "" if kind == "cgroup2" else "cpu" if kind == "cgroup" and "cpu" in options.split(",") else None
        if controller is None or controller not in paths:
            continue
        mount, path = root / mount_point.lstrip("/"), paths[controller]
        inside = path.removeprefix(mounted_root.rstrip("/")) if path.startswith(mounted_root) else ""
        group = mount / inside.lstrip("/")
        yield mount, group if ".." not in group.parts and group.is_dir() else mount


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
