"""The memory that a container may use, for both versions of control groups."""

from pathlib import Path

import pytest

from kfp_image_classification.components.step.memory_limit import usable_memory

GIB = 1 << 30
VERSION_2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/pod/container\n"
VERSION_1 = "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "5:memory:/pod/container\n"


@pytest.mark.parametrize(
    ("version", "files", "expected"),
    [
        (VERSION_2, {}, 64),
        (VERSION_2, {"sys/fs/cgroup/pod/container/memory.max": "max"}, 64),
        (VERSION_2, {"sys/fs/cgroup/pod/container/memory.max": str(2 * GIB)}, 2),
        (
            VERSION_2,
            {
                "sys/fs/cgroup/pod/container/memory.max": str(4 * GIB),
                "sys/fs/cgroup/pod/memory.max": str(3 * GIB),
            },
            3,
        ),
        (VERSION_1, {"sys/fs/cgroup/memory/pod/container/memory.limit_in_bytes": str(2 * GIB)}, 2),
        (VERSION_1, {"sys/fs/cgroup/memory/pod/container/memory.limit_in_bytes": "9223372036854771712"}, 64),
        (("", ""), {}, 64),
    ],
)
def test_usable_memory(tmp_path: Path, version: tuple[str, str], files: dict[str, str], expected: int) -> None:
    mounts, membership = version
    for name, content in {**files, "proc/self/mountinfo": mounts, "proc/self/cgroup": membership}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    for folder in ("sys/fs/cgroup/pod/container", "sys/fs/cgroup/memory/pod/container"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    assert usable_memory(tmp_path, installed=64 * GIB) == expected * GIB
