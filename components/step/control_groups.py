"""The kernel's control groups that limit this process, of either version."""

from collections.abc import Iterator
from pathlib import Path


def limiting_groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the groups whose limits hold for this process: its own, and those above it.

    Args:
        controller: `cpu` or `memory`.
        root: Where `/proc` and the mounted control groups are.
    """
    for mount, group in _hierarchies(controller, root):
        for folder in [group, *group.parents]:
            if folder == mount or mount in folder.parents:
                yield folder


def _hierarchies(controller: str, root: Path) -> Iterator[tuple[Path, Path]]:
    """The hierarchies with that controller: where each is mounted, and this process's own folder in it.

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
        found = (
            "" if kind == "cgroup2" else controller if kind == "cgroup" and controller in options.split(",") else None
        )
        if found is None or found not in paths:
            continue
        mount, path = root / mount_point.lstrip("/"), paths[found]
        inside = path.removeprefix(mounted_root.rstrip("/")) if path.startswith(mounted_root) else ""
        group = mount / inside.lstrip("/")
        yield mount, group if ".." not in group.parts and group.is_dir() else mount
