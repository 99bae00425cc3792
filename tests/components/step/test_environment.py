"""What a shell's left-over variables change: nothing. In a pod, what the manifest says is taken."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kfp_image_classification.components.step.environment import own_environment

SHELL = {"PATH": "/bin", "HOME": "/home/me"}


@pytest.mark.parametrize(
    ("name", "value", "becomes"),
    [
        ("KERAS_BACKEND", "jax", "tensorflow"),
        ("KERAS_HOME", "/home/me/.keras", os.devnull),
        ("KERAS_MAX_EPOCHS", "1", None),
        ("TF_USE_LEGACY_KERAS", "1", None),
        ("TF_XLA_FLAGS", "--tf_xla_auto_jit=2", None),
        ("TF_ENABLE_ONEDNN_OPTS", "0", None),
        ("TF_NUM_INTRAOP_THREADS", "9", "3"),
        ("TF_NUM_INTEROP_THREADS", "9", "3"),
        ("TF_CPP_MIN_LOG_LEVEL", "0", "0"),
        ("TF_CONFIG", "{}", "{}"),
        ("TF_GPU_ALLOCATOR", "cuda_malloc_async", "cuda_malloc_async"),
        ("XLA_FLAGS", "--xla_dump_to=/x", None),
        ("XLA_FLAGS", "--xla_dump_to=/x --xla_gpu_cuda_data_dir=/opt/cuda", "--xla_gpu_cuda_data_dir=/opt/cuda"),
        ("OMP_NUM_THREADS", "9", "3"),
        ("MKL_NUM_THREADS", "9", None),
        ("OPENBLAS_NUM_THREADS", "9", None),
        ("ONEDNN_MAX_CPU_ISA", "SSE41", None),
        ("MPLBACKEND", "module://inline", None),
        ("TF2_BEHAVIOR", "0", None),
        ("NVIDIA_TF32_OVERRIDE", "0", None),
        ("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python", None),
        ("MPLCONFIGDIR", "/there", "/there"),
        ("PYTHONWARNINGS", "error", None),
        ("PYTHONSTARTUP", "/x.py", None),
        ("PYTHONIOENCODING", "latin-1", None),
        ("PYTHONUTF8", "0", "1"),
        ("PYTHONOPTIMIZE", "2", None),
        ("PYTHONDONTWRITEBYTECODE", "1", "1"),
        ("CUDA_VISIBLE_DEVICES", "1", "1"),
        ("TFDS_DATA_DIR", "/data", "/data"),
        ("LD_LIBRARY_PATH", "/lib", "/lib"),
        ("LANG", "C", "C"),
    ],
)
def test_left_over_variable(name: str, value: str, becomes: str | None) -> None:
    assert own_environment({**SHELL, name: value}, cores=3).get(name) == becomes


@pytest.mark.parametrize("place", ["KUBERNETES_SERVICE_HOST", "CLOUD_ML_PROJECT_ID"])
@pytest.mark.parametrize(
    ("name", "value", "becomes"),
    [
        ("TF_XLA_FLAGS", "--tf_xla_auto_jit=2", "--tf_xla_auto_jit=2"),
        ("TF_NUM_INTRAOP_THREADS", "9", "9"),
        ("OMP_NUM_THREADS", "9", "9"),
        ("PYTHONPATH", "/mine", "/mine"),
        ("KERAS_BACKEND", "jax", "tensorflow"),
        ("TF_USE_LEGACY_KERAS", "1", None),
    ],
)
def test_variable_of_a_container(place: str, name: str, value: str, becomes: str | None) -> None:
    assert own_environment({**SHELL, place: "there", name: value}, cores=3).get(name) == becomes


def test_steps_of_a_run_in_a_notebooks_pod_have_a_shell() -> None:
    pod = {**SHELL, "KUBERNETES_SERVICE_HOST": "10.96.0.1", "OMP_NUM_THREADS": "9"}
    assert own_environment({**pod, "RUN_OWNER_PID": "7"}, cores=3)["OMP_NUM_THREADS"] == "3"


def test_only_vertex_has_googles_metadata_server() -> None:
    assert own_environment(SHELL, 1)["NO_GCE_CHECK"] == "true"
    assert "NO_GCE_CHECK" not in own_environment({**SHELL, "CLOUD_ML_PROJECT_ID": "p"}, 1)


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, str]:
    """A shell in which much was set for other programs; its packages end whoever loads them."""
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(
        json.dumps({"floatx": "float16", "image_data_format": "channels_first", "backend": "torch", "epsilon": 0.1})
    )
    for package in ("numpy", "keras"):
        (tmp_path / "packages" / package).mkdir(parents=True)
        (tmp_path / "packages" / package / "__init__.py").write_text("raise SystemExit('of another Python')")
    (tmp_path / "packages" / "only_there.py").write_text("")
    return {
        **os.environ,
        "HOME": str(tmp_path),
        "KERAS_HOME": str(tmp_path / ".keras"),
        "KERAS_BACKEND": "torch",
        "TF_USE_LEGACY_KERAS": "1",
        "XLA_FLAGS": "--no_such_flag",
        "TF_XLA_FLAGS": "--no_such_flag",
        "PYTHONWARNINGS": "error",
        "PYTHONPATH": str(tmp_path / "packages"),
    }


LOAD = """
import warnings
from kfp_image_classification.components.step.process_start import start_process
start_process()
import keras, tensorflow as tf, only_there
warnings.warn("no error")
product = tf.function(lambda x: x @ x, jit_compile=True)(tf.ones((2, 2)))
print(keras.config.floatx(), keras.config.image_data_format(), keras.backend.backend(), keras.config.epsilon())
print(tf.keras.Sequential is keras.Sequential)
"""


def test_step_loads_tensorflow_and_keras_as_they_are(hostile: dict[str, str]) -> None:
    told = subprocess.run([sys.executable, "-c", LOAD], env=hostile, capture_output=True, text=True, check=False)
    assert told.stdout.splitlines() == ["float32 channels_last tensorflow 1e-07", "True"], told.stderr
