"""The GPUs of this machine, as far as a process may use them, and how local workers share them and the cores.

TensorFlow is not asked: it takes seconds to load, and would keep the memory of every GPU that it sees.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.options import Devices

VISIBLE = "CUDA_VISIBLE_DEVICES"
# What NVIDIA's container runtime gives a container; its words for "none" are in the documentation of its toolkit.
GIVEN_TO_CONTAINER = "NVIDIA_VISIBLE_DEVICES"
_EVERY, _NO_WORD, _NONE = "all", ("", "void"), "none"
LIST_SECONDS = 20.0
_GPU = re.compile(r"GPU (\d+): .*\(UUID: (GPU-[^)]+)\)")
_PART = re.compile(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)")


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine.

    Attributes:
        index: Its number.
        name: How CUDA_VISIBLE_DEVICES names it: by its UUID, or by its number where that is not known.
        parts: The UUIDs of the parts into which it is divided (MIG), each of which is like a GPU to a process.
    """

    index: int
    name: str
    parts: tuple[str, ...] = ()

    def is_called(self, word: str) -> bool:
        return word == str(self.index) or (word.startswith("GPU-") and self.name.startswith(word))


@dataclass(frozen=True)
class Plan:
    """What each local worker computes on.

    Attributes:
        gpus: For each worker the name of its GPU; none when all compute on the CPU.
        cores: For each worker its cores, as the kernel counts them; none where nothing pins a process.
        shared: Whether several workers have the same GPU.
        words: The same for the log.
    """

    gpus: tuple[str, ...]
    cores: tuple[tuple[int, ...], ...]
    shared: bool
    words: str


def installed_gpus() -> list[Gpu]:
    """The GPUs that the driver of this machine, or of this container, has."""
    if program := shutil.which("nvidia-smi"):
        try:
            ended = subprocess.run(
                [program, "-L"], capture_output=True, text=True, timeout=LIST_SECONDS, check=False, encoding="utf-8"
            )
        except (OSError, subprocess.TimeoutExpired):
            return []
        return listed(ended.stdout) if ended.returncode == 0 else []
    # Containers often have the driver without its programs.
    numbers = sorted(int(node.name.removeprefix("nvidia")) for node in Path("/dev").glob("nvidia[0-9]*"))
    return [Gpu(number, str(number)) for number in numbers]


def listed(text: str) -> list[Gpu]:
    """Reads what `nvidia-smi -L` says."""
    gpus: list[Gpu] = []
    for line in text.splitlines():
        if found := _GPU.match(line):
            gpus.append(Gpu(int(found[1]), found[2]))
        elif gpus and (part := _PART.match(line)):
            gpus[-1] = Gpu(gpus[-1].index, gpus[-1].name, (*gpus[-1].parts, part[1]))
    return gpus


def visible_gpus(installed: Sequence[Gpu], environment: Mapping[str, str]) -> list[str]:
    """The GPUs that a process may use, by the names that CUDA_VISIBLE_DEVICES takes.

    As CUDA does it, the first name that is none of a GPU ends the list; see
    https://docs.nvidia.com/cuda/cuda-c-programming-guide/#env-vars.
    """
    given = environment.get(GIVEN_TO_CONTAINER, _EVERY).strip()
    if given == _NONE:
        return []
    allowed = list(installed)
    if given != _EVERY and given not in _NO_WORD:
        words = [word.strip() for word in given.split(",")]
        # In a container that sees all of its machine's, as a privileged one does.
        allowed = [
            gpu for gpu in installed if any(gpu.is_called(word) or word in gpu.parts for word in words)
        ] or allowed
    if VISIBLE not in environment:
        return [name for gpu in allowed for name in (gpu.parts or (gpu.name,))]
    chosen: list[str] = []
    for word in (word.strip() for word in environment[VISIBLE].split(",")):
        if not any(gpu.is_called(word) or _is_part(gpu, word) for gpu in allowed) or word in chosen:
            break
        chosen.append(word)
    return chosen


def _is_part(gpu: Gpu, word: str) -> bool:
    return word.startswith("MIG-") and any(part.startswith(word) for part in gpu.parts)


def check_devices(devices: Devices, gpus: Sequence[str], installed: int, environment: Mapping[str, str]) -> None:
    """Refuses to train on GPUs where there are none.

    Args:
        devices: What was asked for.
        gpus: Those that may be used.
        installed: How many the machine has.
        environment: Of this process.

    Raises:
        InvalidInput: With what to do.
    """
    if devices != "gpu" or gpus:
        return
    if installed:
        hidden_by = next((name for name in (VISIBLE, GIVEN_TO_CONTAINER) if name in environment), VISIBLE)
        raise InvalidInput(
            f"devices = 'gpu': {hidden_by} = {environment.get(hidden_by, '')!r} leaves none of this machine's "
            f"{installed} GPUs; unset it, or use devices = 'auto' or 'cpu'"
        )
    raise InvalidInput(
        "devices = 'gpu': there is no NVIDIA GPU here (nvidia-smi -L lists none, and there is no /dev/nvidia0); "
        "install the driver, give the container its GPUs (docker run --gpus all), or use devices = 'auto' or 'cpu'"
    )


def plan(workers: int, gpus: Sequence[str], cores: Sequence[int]) -> Plan:
    """Shares GPUs and cores out: a GPU each where there are enough, and with it a part of all cores.

    Without GPUs a worker has one core: several small jobs then run beside each other.

    Args:
        workers: How many.
        gpus: Those that may be used; none for the CPU.
        cores: Those that the job may have; none where a process cannot be pinned.
    """
    if not gpus:
        pinned = tuple((core,) for core in cores) if len(cores) == workers else ()
        each = " with one core each" if pinned else ""
        return Plan((), pinned, False, f"{workers} {_workers(workers)} on the CPU{each}")
    own = tuple(gpus[index % len(gpus)] for index in range(workers))
    shared = workers > len(gpus)
    parts = tuple(_part(cores, index, workers) for index in range(workers)) if cores else ()
    where = f"sharing {len(gpus)} {'GPU' if len(gpus) == 1 else 'GPUs'}" if shared else "with a GPU each"
    fewest = min((len(part) for part in parts), default=0)
    with_cores = f", {fewest} {'core' if fewest == 1 else 'cores'} each" if parts else ""
    names = ", ".join(dict.fromkeys(own))
    return Plan(own, parts, shared, f"{workers} {_workers(workers)} {where}{with_cores} ({names})")


def _part(cores: Sequence[int], index: int, workers: int) -> tuple[int, ...]:
    """Neighbours, which share a cache; where there are fewer cores than workers, one for several of them."""
    if len(cores) < workers:
        return (cores[index % len(cores)],)
    return tuple(cores[index * len(cores) // workers : (index + 1) * len(cores) // workers])


def _workers(count: int) -> str:
    return "worker" if count == 1 else "workers"
