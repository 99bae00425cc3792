"""The limit of control groups: from folders of files, as each kind of system lays them out, and from a real group."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from skips import Need, skip, skip_unless

from kfp_image_classification.components.step.cpu_limit import usable_cores

V2 = "30 20 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw,nsdelegate\n"
V1 = "33 31 0:29 {root} /sys/fs/cgroup/{name} rw,relatime - cgroup cgroup rw,{name}\n"
HYBRID = V1.format(root="/", name="cpu,cpuacct") + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"

POD = "/kubepods.slice/burstable/pod1/abc"
LIMITS = {
    "nothing is mounted": ("", "", {}, 8),
    "v2, no limit": (V2.format(root="/"), "0::/", {"sys/fs/cgroup/cpu.max": "max 100000"}, 8),
    "v2": (V2.format(root="/"), "0::/", {"sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
    "v2, half a CPU": (V2.format(root="/"), "0::/", {"sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
    "v2, one and a half": (V2.format(root="/"), "0::/", {"sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
    "v2, another period": (V2.format(root="/"), "0::/", {"sys/fs/cgroup/cpu.max": "30000 10000"}, 3),
    "v2, own group": (
        V2.format(root="/"),
        "0::/user.slice/build",
        {"sys/fs/cgroup/user.slice/build/cpu.max": "400000 100000", "sys/fs/cgroup/user.slice/cpu.max": "max 100000"},
        4,
    ),
    "v2, a parent's limit": (
        V2.format(root="/"),
        "0::/user.slice/build",
        {
            "sys/fs/cgroup/user.slice/build/cpu.max": "400000 100000",
            "sys/fs/cgroup/user.slice/cpu.max": "300000 100000",
        },
        3,
    ),
    "v2, a parent's limit alone": (
        V2.format(root="/"),
        "0::/a/b/c",
        {"sys/fs/cgroup/a/b/c/memory.max": "max", "sys/fs/cgroup/a/cpu.max": "100000 100000"},
        1,
    ),
    "v2, a group that is none of ours": (
        V2.format(root="/"),
        "0::/a",
        {"sys/fs/cgroup/a/cpu.max": "max 100000", "sys/fs/cgroup/b/cpu.max": "100000 100000"},
        8,
    ),
    "v2, in a container with the node's path": (V2.format(root="/"), f"0::{POD}", {"sys/fs/cgroup/cpu.max": "2 1"}, 2),
    "v2, mounted from a pod's group on": (
        V2.format(root="/kubepods.slice/burstable/pod1"),
        f"0::{POD}",
        {"sys/fs/cgroup/abc/cpu.max": "500000 100000", "sys/fs/cgroup/cpu.max": "300000 100000"},
        3,
    ),
    "v2, outside its name space": (V2.format(root="/"), "0::/../../x", {"sys/fs/cgroup/cpu.max": "2 1"}, 2),
    "v2, what cannot be read": (V2.format(root="/"), "0::/", {"sys/fs/cgroup/cpu.max": "nonsense"}, 8),
    "v2, a mount with a space": (
        "30 20 0:26 / /my\\040groups rw - cgroup2 cgroup rw\n",
        "0::/",
        {"my groups/cpu.max": "100000 100000"},
        1,
    ),
    "v1, no limit": (
        V1.format(root="/", name="cpu,cpuacct"),
        "4:cpu,cpuacct:/",
        {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000"},
        8,
    ),
    "v1, in docker": (
        V1.format(root="/docker/abc", name="cpu,cpuacct"),
        "4:cpu,cpuacct:/docker/abc",
        {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "25000", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "10000"},
        3,
    ),
    "v1, a parent's limit": (
        V1.format(root="/", name="cpuset") + V1.format(root="/", name="cpu"),
        "3:cpuset:/\n1:cpu:/jobs/one",
        {
            "sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu/jobs/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu/jobs/one/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/jobs/one/cpu.cfs_period_us": "100000",
        },
        2,
    ),
    "both mounted, v1 limits": (
        HYBRID,
        "4:cpu,cpuacct:/a\n0::/",
        {
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000",
        },
        1,
    ),
    "more than there is": (V2.format(root="/"), "0::/", {"sys/fs/cgroup/cpu.max": "6400000 100000"}, 8),
}


@pytest.mark.parametrize(("mounts", "groups", "files", "cores"), LIMITS.values(), ids=LIMITS)
def test_limit_of_control_groups(mounts: str, groups: str, files: dict[str, str], cores: int, tmp_path: Path) -> None:
    for name, content in {"proc/self/mountinfo": mounts, "proc/self/cgroup": groups, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert usable_cores(tmp_path, affinity=8) == cores


def test_affinity_which_a_cpuset_sets_limits_too(tmp_path: Path) -> None:
    assert usable_cores(tmp_path, affinity=1) == 1
    code = "from kfp_image_classification.components.step.cpu_limit import usable_cores as u; print(u())"
    core = min(os.sched_getaffinity(0))
    told = subprocess.run(
        ["taskset", "-c", str(core), sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert told.stdout == "1\n"


@pytest.fixture
def real_group() -> Iterator[Path]:
    """A group of this machine in which one CPU may be used."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    for folder, files in (
        (Path("/sys/fs/cgroup/cpu", name), {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "100000"}),
        (Path("/sys/fs/cgroup", name), {"cpu.max": "100000 100000"}),
    ):
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            for file, content in files.items():
                (folder / file).write_text(content)
        except OSError:
            folder.rmdir()
            continue
        yield folder
        folder.rmdir()
        return
    skip(Need.SYSTEM, "no control group can be made here (needs root, and the cpu controller)")


COUNT_THREADS = """
import os
from kfp_image_classification.components.step.process_start import start_process
start_process()
import tensorflow as tf
product = tf.matmul(tf.ones((300, 300)), tf.ones((300, 300)))
batches = tf.data.Dataset.range(100).map(lambda x: x + 1, num_parallel_calls=tf.data.AUTOTUNE).batch(5)
assert len(list(batches)) == 20
names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
print(names.count("tf_Compute"), os.environ["OMP_NUM_THREADS"])
"""


@skip_unless(len(os.sched_getaffinity(0)) > 1, Need.SYSTEM, "needs two cores, of which one may be used")
def test_tensorflow_computes_with_as_many_threads_as_a_real_group_allows(real_group: Path) -> None:
    join = f'echo $$ > {real_group}/cgroup.procs && exec "$@"'
    told = subprocess.run(
        ["sh", "-c", join, "sh", sys.executable, "-c", COUNT_THREADS],
        env={**os.environ, "TF_NUM_INTRAOP_THREADS": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "1 1\n"
