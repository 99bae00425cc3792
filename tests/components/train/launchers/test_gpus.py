"""Which GPUs local workers get. There is none here: what nvidia-smi prints is as NVIDIA documents it."""

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import pytest
from log_lines import LogLines

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed
from kfp_image_classification.components.train.launchers.gpus import (
    Gpu,
    check_devices,
    installed_gpus,
    listed,
    plan,
    visible_gpus,
)
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.run_job import run_job

TWO = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa0000-1111)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb0000-2222)
"""
DIVIDED = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa0000-1111)
  MIG 3g.20gb     Device  0: (UUID: MIG-0000)
  MIG 3g.20gb     Device  1: (UUID: MIG-1111)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb0000-2222)
"""
A, B = "GPU-aaaa0000-1111", "GPU-bbbb0000-2222"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TWO, [Gpu(0, A), Gpu(1, B)]),
        (DIVIDED, [Gpu(0, A, ("MIG-0000", "MIG-1111")), Gpu(1, B)]),
        ("No devices were found\n", []),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", []),
        ("", []),
    ],
)
def test_what_nvidia_smi_lists(text: str, expected: list[Gpu]) -> None:
    assert listed(text) == expected


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        (TWO, {}, [A, B]),
        (TWO, {"CUDA_VISIBLE_DEVICES": "1"}, ["1"]),
        (TWO, {"CUDA_VISIBLE_DEVICES": "1,0"}, ["1", "0"]),
        (TWO, {"CUDA_VISIBLE_DEVICES": "0, 1"}, ["0", "1"]),
        (TWO, {"CUDA_VISIBLE_DEVICES": ""}, []),
        (TWO, {"CUDA_VISIBLE_DEVICES": "-1"}, []),
        (TWO, {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, []),
        (TWO, {"CUDA_VISIBLE_DEVICES": "0,7,1"}, ["0"]),
        (TWO, {"CUDA_VISIBLE_DEVICES": "0,0"}, ["0"]),
        (TWO, {"CUDA_VISIBLE_DEVICES": "GPU-bbbb"}, ["GPU-bbbb"]),
        (TWO, {"NVIDIA_VISIBLE_DEVICES": "all"}, [A, B]),
        (TWO, {"NVIDIA_VISIBLE_DEVICES": "none"}, []),
        (TWO, {"NVIDIA_VISIBLE_DEVICES": "void"}, [A, B]),
        (TWO, {"NVIDIA_VISIBLE_DEVICES": ""}, [A, B]),
        (TWO, {"NVIDIA_VISIBLE_DEVICES": B}, [B]),
        (TWO, {"NVIDIA_VISIBLE_DEVICES": "0"}, [A]),
        (TWO, {"NVIDIA_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "1"}, []),
        # Words that are not known take nothing away.
        (TWO, {"NVIDIA_VISIBLE_DEVICES": "nvidia.com/gpu=0"}, [A, B]),
        (DIVIDED, {}, ["MIG-0000", "MIG-1111", B]),
        (DIVIDED, {"CUDA_VISIBLE_DEVICES": "MIG-1111"}, ["MIG-1111"]),
        ("", {}, []),
        ("", {"NVIDIA_VISIBLE_DEVICES": "all"}, []),  # as the images of many programs have it
        ("", {"CUDA_VISIBLE_DEVICES": "0"}, []),
    ],
)
def test_which_may_be_used(text: str, environment: dict[str, str], expected: list[str]) -> None:
    assert visible_gpus(listed(text), environment) == expected


EIGHT = list(range(8))


@pytest.mark.parametrize(
    ("workers", "gpus", "cores", "own", "parts", "shared", "words"),
    [
        (2, [A, B], EIGHT, (A, B), ((0, 1, 2, 3), (4, 5, 6, 7)), False, "2 workers with a GPU each, 4 cores each"),
        (2, [A], EIGHT, (A, A), ((0, 1, 2, 3), (4, 5, 6, 7)), True, "2 workers sharing 1 GPU, 4 cores each"),
        (3, [A, B], EIGHT, (A, B, A), ((0, 1), (2, 3, 4), (5, 6, 7)), True, "3 workers sharing 2 GPUs, 2 cores each"),
        (1, [A, B], EIGHT, (A,), (tuple(EIGHT),), False, "1 worker with a GPU each, 8 cores each"),
        (4, [A], [0, 1], (A,) * 4, ((0,), (1,), (0,), (1,)), True, "4 workers sharing 1 GPU, 1 core each"),
        (2, [A], [], (A, A), (), True, "2 workers sharing 1 GPU"),
        (2, [], [3, 5], (), ((3,), (5,)), False, "2 workers on the CPU with one core each"),
        (3, [], [3, 5], (), (), False, "3 workers on the CPU"),
        (1, [], [], (), (), False, "1 worker on the CPU"),
    ],
)
def test_how_workers_share(
    workers: int,
    gpus: list[str],
    cores: list[int],
    own: tuple[str, ...],
    parts: tuple[tuple[int, ...], ...],
    shared: bool,
    words: str,
) -> None:
    shares = plan(workers, gpus, cores)
    assert (shares.gpus, shares.cores, shares.shared) == (own, parts, shared)
    assert shares.words.startswith(words)


@pytest.mark.parametrize(
    ("devices", "gpus", "installed", "environment", "problem"),
    [
        ("auto", [], 0, {}, ""),
        ("cpu", [], 0, {}, ""),
        ("gpu", [A], 1, {}, ""),
        ("gpu", [], 0, {}, "devices = 'gpu': there is no NVIDIA GPU here"),
        (
            "gpu",
            [],
            2,
            {"CUDA_VISIBLE_DEVICES": "-1"},
            "CUDA_VISIBLE_DEVICES = '-1' leaves none of this machine's 2 GPUs",
        ),
        ("gpu", [], 2, {"NVIDIA_VISIBLE_DEVICES": "none"}, "NVIDIA_VISIBLE_DEVICES = 'none' leaves none"),
    ],
)
def test_gpus_that_are_asked_for_must_be_there(
    devices: Any, gpus: list[str], installed: int, environment: dict[str, str], problem: str
) -> None:
    with pytest.raises(InvalidInput, match=re.escape(problem)) if problem else contextlib.nullcontext():
        check_devices(devices, gpus, installed, environment)


def job(digits: Dataset, directory: Path, devices: str) -> TrainingJob:
    options = TrainOptions(
        model_type="cnn_small", workers=1, epochs=1, batch_size=600, learning_rates="0:1e-3", seed=7, devices=devices
    )
    return TrainingJob(options=options, dataset=str(digits.directory), directory=str(directory / "job"))


def with_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose driver lists a GPU."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' '{TWO.splitlines()[0]}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def test_nothing_is_started_without_the_gpu_that_is_asked_for(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_nvidia_smi(tmp_path, monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(
        InvalidInput, match="devices = 'gpu': CUDA_VISIBLE_DEVICES = '-1' leaves none of this machine's 1"
    ):
        run_job(job(digits, tmp_path, "gpu"), tmp_path / "model", LogLines().logger)
    assert not (tmp_path / "job").exists()


def test_the_driver_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_nvidia_smi(tmp_path, monkeypatch)
    assert installed_gpus() == [Gpu(0, A)]
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    assert installed_gpus() == []


def test_a_worker_that_does_not_see_its_gpu_fails_at_once(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver lists a GPU, and this TensorFlow cannot use one."""
    with_nvidia_smi(tmp_path, monkeypatch)
    log = LogLines()
    with pytest.raises(StageFailed, match="worker-0 exited with code 2") as error:
        run_job(job(digits, tmp_path, "gpu"), tmp_path / "model", log.logger)
    assert f"devices = gpu: 1 worker with a GPU each, {len(os.sched_getaffinity(0))} cores each ({A})" in log.text
    last = str(error.value).splitlines()[-1].strip()
    assert last.startswith("error: devices = 'gpu': TensorFlow sees no GPU")
    for word in ("image", "driver", "device plugin"):
        assert word in last
    assert "restart" not in log.text


def test_where_tensorflow_cannot_use_the_gpu_auto_takes_the_cpu(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_nvidia_smi(tmp_path, monkeypatch)
    log = LogLines()
    run_job(job(digits, tmp_path, "auto"), tmp_path / "model", log.logger)
    cores = len(os.sched_getaffinity(0))
    assert f"devices = auto: 1 worker with a GPU each, {cores} cores each ({A})" in log.text
    assert f"worker 0 computes on the CPU, {cores} cores, as TensorFlow cannot use the GPU" in log.text
