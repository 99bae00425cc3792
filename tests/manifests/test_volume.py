"""The jobs that prepare the volume: their scripts run as processes with the rights that the manifests give them."""

import multiprocessing
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from repository import REPOSITORY
from skips import Need, skip

from kfp_image_classification.components.cluster import images
from kfp_image_classification.components.cluster.storage import CLAIM, CLAIM_MANIFEST, claim_command, datasets_directory
from kfp_image_classification.components.step.errors import StageFailed

MOUNT = "/mnt/storage"
# As images/*/Dockerfile has it, so Kubeflow Pipelines' pods too.
USER = ["--reuid=1000", "--regid=1000", "--clear-groups"]
Object = dict[str, Any]


def manifest(name: str) -> Object:
    items = yaml.safe_load_all((REPOSITORY / CLAIM_MANIFEST).read_text())
    (found,) = [item for item in items if item["kind"] == "Job" and item["metadata"]["name"].startswith(name)]
    return found


def pod(name: str) -> Object:
    return manifest(name)["spec"]["template"]["spec"]


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A new volume as a storage driver leaves it: it belongs to root, who alone may write."""
    if os.getuid() != 0 or not shutil.which("setpriv"):
        skip(Need.SYSTEM, "needs root, who can become another user, and setpriv")
    folder = tmp_path / "volume"
    folder.mkdir(mode=0o755)
    for parent in (tmp_path, *tmp_path.parents):
        if Path(tempfile.gettempdir()) in parent.parents:
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH | stat.S_IXGRP)
    return folder


def as_in(name: str, volume: Path, groups: str = "", seconds: str = "1") -> subprocess.CompletedProcess[str]:
    """Runs a job's container on a volume, as its user and with its capabilities alone."""
    (container,) = pod(name)["containers"]
    added = [f"+{capability.lower()}" for capability in container["securityContext"]["capabilities"].get("add", [])]
    capabilities = ",".join(["-all", *added])
    user = pod(name)["securityContext"]
    as_user = ["--reuid=1000", "--regid=1000", f"--groups={groups}" if groups else "--clear-groups"]
    rights = ["--inh-caps", capabilities, "--bounding-set", capabilities, "--no-new-privs"]
    arguments = [{MOUNT: str(volume), "300": seconds}.get(word, word) for word in container["args"]]
    return subprocess.run(
        ["setpriv", *(as_user if user["runAsUser"] else []), *rights, *container["command"], *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def step_can_write(volume: Path) -> bool:
    """As a step of Kubeflow Pipelines: no further group."""
    write = f"mkdir -p {volume}/runs/a {volume}/datasets/b && touch {volume}/runs/a/x {volume}/datasets/b/x"
    return subprocess.run(["setpriv", *USER, "sh", "-c", write], check=False, capture_output=True).returncode == 0


def apply_fs_group(volume: Path) -> None:
    """As the kubelet does it for a driver that knows fsGroup: pkg/volume/volume_linux.go of Kubernetes."""
    os.chown(volume, -1, 1000)
    volume.chmod(0o2775)


def test_a_new_volume_cannot_be_written(volume: Path) -> None:
    assert not step_can_write(volume)


def test_a_driver_that_knows_fs_group_needs_no_root(volume: Path) -> None:
    apply_fs_group(volume)
    done = as_in("prepare", volume)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{volume} can be written by user 1000\n"
    assert step_can_write(volume)
    assert volume.stat().st_uid == 0, "nobody else was needed"


def test_where_fs_group_is_ignored_the_owner_is_changed(volume: Path) -> None:
    owned = as_in("own", volume)
    assert (owned.returncode, owned.stderr) == (0, "")
    assert as_in("prepare", volume).returncode == 0
    assert step_can_write(volume)


def test_both_can_be_run_again(volume: Path) -> None:
    for _ in range(2):
        assert as_in("own", volume).returncode == 0
        assert as_in("prepare", volume).returncode == 0
    apply_fs_group(volume)
    assert as_in("own", volume).stdout == ""


def test_folders_that_root_has_left_are_given_away_too(volume: Path) -> None:
    for name in ("runs", "datasets"):
        (volume / name).mkdir()
    (volume / "runs" / "precious").mkdir()
    assert as_in("own", volume).returncode == 0
    assert step_can_write(volume)
    assert (volume / "runs" / "precious").stat().st_uid == 0, "what lies deeper is somebody's"


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o2775])
def test_what_can_be_written_already_stays_as_it_is(mode: int, volume: Path) -> None:
    if not mode & stat.S_IWOTH:
        os.chown(volume, 0, 1000)
    volume.chmod(mode)
    before = volume.stat()
    assert as_in("own", volume).stdout == ""
    assert as_in("prepare", volume).returncode == 0
    after = volume.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


def test_what_cannot_be_mended_is_told(volume: Path) -> None:
    """Of another user, and fsGroup ignored."""
    os.chown(volume, 4711, 4711)
    assert as_in("own", volume).returncode == 0
    done = as_in("prepare", volume)
    assert done.returncode == 1
    assert f"{volume} cannot be written by user 1000, group 1000: it belongs to user 4711" in done.stderr


def refused_to_user(volume: Path, answer: Any) -> None:
    """Runs in a process of its own, which becomes the user of the images."""
    os.setgroups([])
    os.setgid(1000)
    os.setuid(1000)
    os.environ.update(RUN_ID="a", STORAGE_PATH=str(volume))
    try:
        datasets_directory("team-data")
        answer.send("it can be written")
    except StageFailed as error:
        answer.send(str(error))


def test_the_step_that_finds_it_names_the_claim_and_the_command(volume: Path) -> None:
    import kubernetes.config  # noqa: F401 - the other user may not be able to read it

    own_end, other_end = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=refused_to_user, args=(volume, other_end))
    process.start()
    other_end.close()
    told = own_end.recv() if own_end.poll(30) else ""
    process.join()
    assert f"the volume at {volume}, claim team-data, cannot be written by user 1000 (Permission denied)" in told
    assert "it belongs to user 0, group 0, mode 755" in told
    assert f"sed -E 's/: ((prepare|own)-)?{CLAIM}/: \\1team-data/' {CLAIM_MANIFEST}" in told


def test_the_command_for_another_claim_makes_that_one() -> None:
    command = claim_command("team-data", "team")
    rename, _, apply = command.partition(" | ")
    assert apply == "kubectl -n team apply --server-side -f -"
    told = subprocess.run(["sh", "-c", rename], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    claim, *jobs = yaml.safe_load_all(told)
    assert claim["metadata"]["name"] == "team-data"
    assert [job["metadata"]["name"] for job in jobs] == ["prepare-team-data-0-1-0", "own-team-data-0-1-0"]
    for job in jobs:
        (mounted,) = job["spec"]["template"]["spec"]["volumes"]
        assert mounted["persistentVolumeClaim"]["claimName"] == "team-data"
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["image"] == images.LAUNCHER_IMAGE
    assert claim_command(CLAIM, "kubeflow") == "kubectl apply --server-side -k manifests/overlays/local"


def test_a_new_version_is_a_new_job() -> None:
    """A job cannot be changed, so an update of its image under the same name would be refused."""
    tag = images.LAUNCHER_IMAGE.rpartition(":")[2]
    for name in ("prepare", "own"):
        job = manifest(name)
        assert job["metadata"]["name"].endswith("-" + tag.replace(".", "-"))
        assert 0 < job["spec"]["ttlSecondsAfterFinished"] <= 300


def test_one_job_keeps_to_the_restricted_standard_and_the_other_has_one_right() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    for name, added in (("prepare", None), ("own", ["CHOWN"])):
        (container,) = pod(name)["containers"]
        security, context = pod(name)["securityContext"], container["securityContext"]
        assert context.pop("capabilities") == {"drop": ["ALL"], **({"add": added} if added else {})}
        assert context == {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod(name)["automountServiceAccountToken"] is False
    assert pod("prepare")["securityContext"]["runAsNonRoot"] is True
    assert pod("prepare")["securityContext"]["fsGroup"] == 1000
