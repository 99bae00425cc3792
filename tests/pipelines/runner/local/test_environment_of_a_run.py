"""A whole run in a shell full of left-overs, by a user without a name: it gives what it gives in a clean one."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from real_run import assert_no_process_left, latest, read_until, start

NOWHERE = "http://127.0.0.1:9"
PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "grpc_proxy")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder to which another user has a way; pytest's own are root's alone."""
    path = Path(tempfile.mkdtemp(prefix="run-of-a-stranger-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def hostile(folder: Path) -> dict[str, str]:
    """An environment in which all that can be set at the same time is set for other programs."""
    (folder / "home" / ".keras").mkdir(parents=True)
    (folder / "home" / ".keras" / "keras.json").write_text(
        json.dumps({"floatx": "float16", "image_data_format": "channels_first", "backend": "jax", "epsilon": 0.1})
    )
    for package in ("numpy", "keras", "tensorflow", "httpx"):
        (folder / "packages" / package).mkdir(parents=True)
        (folder / "packages" / package / "__init__.py").write_text("raise SystemExit('of another Python')")
    (folder / "json.py").write_text("raise SystemExit('not a module')")  # in the folder where the run is started
    (folder / "a folder").mkdir()
    (folder / "home").chmod(0o555)
    kept = {name: value for name, value in os.environ.items() if name.lower() not in ("no_proxy", "no_grpc_proxy")}
    return {
        **{name: value for name, value in kept.items() if name not in ("USER", "LOGNAME")},
        **dict.fromkeys(PROXIES, NOWHERE),
        "ALL_PROXY": "socks5://127.0.0.1:9",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "a folder"),
        "KERAS_BACKEND": "torch",
        "TF_USE_LEGACY_KERAS": "1",
        "TF_CONFIG": json.dumps({"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}),
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_XLA_FLAGS": "--no_such_flag",
        "XLA_FLAGS": "--no_such_flag",
        "OMP_NUM_THREADS": "7",
        "PYTHONPATH": str(folder / "packages"),
        "PYTHONWARNINGS": "error",
        "PYTHONOPTIMIZE": "2",
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "LC_ALL": "C",
        "MPLBACKEND": "module://nowhere",
    }


def weights_of_cnn(run: Path) -> str:
    for job in run.glob("*/for-loop-*/train/job"):
        if json.loads((job / "job.json").read_text())["model_type"] == "cnn":
            return str(json.loads((job / "reports" / "worker-0.json").read_text())["weights_sha256"])
    raise AssertionError(f"no job of cnn in {run}")


@pytest.mark.slow
def test_hostile_environment_changes_nothing(served: SimpleNamespace, hostile: dict[str, str], folder: Path) -> None:
    before = ["sh", "-c", 'umask 077; exec "$@" <&-', "sh"]
    if (
        os.getuid() == 0
    ):  # as OpenShift and `docker run -u` do; it may read what root may, as the environment lies there
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, 12345, 0)
        reads = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
        before += ["setpriv", "--reuid", "12345", "--regid", "0", "--clear-groups", *reads]
    process = start(folder, "--models", "cnn", "--serve", env=hostile, before=before)
    shown = read_until(process, r"^\s*curl ")
    assert weights_of_cnn(latest(folder)) == weights_of_cnn(served.run)

    answer = subprocess.check_output(shlex.split(shown.splitlines()[-1]), cwd=folder, env=hostile, text=True)
    assert json.loads(answer)["predictions"][0]["label"] in "0123456789"
    url = re.search(r"http://127\.0\.0\.1:\d+", shown.splitlines()[-1])
    assert url
    Image.new("L", (28, 28)).save(folder / "größe.png")
    ask = [sys.executable, "-P", "-m", "kfp_image_classification.components.deploy.predict", "--url", url[0]]
    clean = {name: value for name, value in hostile.items() if not name.startswith("PYTHON") or name.endswith("UTF8")}
    asked = subprocess.run([*ask, str(folder / "größe.png")], env=clean, capture_output=True, check=False)
    assert asked.returncode == 0, asked.stderr

    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(30) == 143
    assert_no_process_left(folder)
