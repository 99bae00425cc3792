"""What this worker computes on, and whether that is what it was given."""

import os
from dataclasses import dataclass

import tensorflow as tf

from kfp_image_classification.components.step.cpu_limit import usable_cores
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.options import TrainingJob

_NO_GPU = "-1"


@dataclass(frozen=True)
class ComputeDevices:
    """What a worker computes on.

    Attributes:
        gpus: How many GPUs, each of which is a replica; none for the CPU, which is one.
        shared: Whether other workers compute on the same GPU.
        words: The same for the log.
    """

    gpus: int
    shared: bool
    words: str

    @property
    def joined_by_nccl(self) -> bool:
        """Whether sums can go from GPU to GPU; NCCL refuses two workers on the same."""
        return self.gpus > 0 and not self.shared

    @property
    def reading_threads(self) -> int:
        """How many cores may decode and augment at a time: on the CPU, computing takes all that there are."""
        return usable_cores() if self.gpus else 1


def find_devices(job: TrainingJob) -> ComputeDevices:
    """Finds this worker's devices; to be called before TensorFlow computes anything.

    Raises:
        InvalidInput: When the worker was given GPUs, or they were asked for, and it does not see them.
    """
    wanted = job.options.devices
    if wanted == "cpu":
        # Not even asked for its memory.
        os.environ["CUDA_VISIBLE_DEVICES"] = _NO_GPU
    gpus = [] if wanted == "cpu" else tf.config.list_physical_devices("GPU")
    if wanted == "gpu" and len(gpus) < max(1, job.gpus):
        raise InvalidInput(_missing(len(gpus), job.gpus, bool(tf.sysconfig.get_build_info()["is_cuda_build"])))
    cores = usable_cores()
    threads = f"{cores} {'core' if cores == 1 else 'cores'}"
    if not gpus:
        unused = ", as TensorFlow cannot use the GPU (its CUDA libraries are missing)" if job.gpus else ""
        return ComputeDevices(0, False, f"the CPU, {threads}{unused}")
    names = ", ".join(str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)) for gpu in gpus)
    shared = " shared with other workers" if job.shares_gpu else ""
    return ComputeDevices(
        len(gpus), job.shares_gpu, f"{len(gpus)} GPU{'s' * (len(gpus) > 1)}{shared} ({names}), {threads}"
    )


def _missing(seen: int, given: int, is_cuda_build: bool) -> str:
    of = f"{seen} of the {given} GPUs that this worker was given" if given > 1 and seen else "no GPU"
    if not is_cuda_build:
        return f"devices = 'gpu': TensorFlow sees {of}, as it was built without CUDA; install tensorflow[and-cuda]"
    return (
        f"devices = 'gpu': TensorFlow sees {of}. Look at the image (it needs NVIDIA's libraries: python-tensorflow-gpu "
        "has them, and pip install tensorflow[and-cuda] brings them), at the driver (nvidia-smi on the node), and on a "
        "cluster at the device plugin (kubectl describe node lists nvidia.com/gpu)"
    )
