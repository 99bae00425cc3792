"""A training job as the worker pools of a Vertex AI CustomJob.

Vertex starts the same program on every machine and tells each its place in TF_CONFIG: the one replica of the first pool
is the chief, those of the second are the workers after it. See
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec for the format.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from kfp_image_classification.components.cluster.images import TENSORFLOW_GPU_IMAGE, TENSORFLOW_IMAGE
from kfp_image_classification.components.contracts.deployed_model import DEPLOYED
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.worker_environment import WORKER_ENVIRONMENT


class Machine(BaseModel):
    """What each worker runs on.

    Attributes:
        image: Container image with TensorFlow and this package; empty for the one of this version, with NVIDIA's
            libraries where the machine has GPUs.
        machine_type: A Compute Engine machine type that Vertex offers for training.
        accelerator_type: A GPU type such as `NVIDIA_TESLA_T4`; empty for none.
        accelerator_count: GPUs of that type a machine.
    """

    model_config = ConfigDict(frozen=True)

    image: str = ""
    machine_type: str = Field(min_length=1)
    accelerator_type: str = ""
    accelerator_count: int = Field(default=1, ge=1)

    @property
    def gpus(self) -> int:
        return self.accelerator_count if self.accelerator_type else 0

    @property
    def resolved_image(self) -> str:
        return self.image or (TENSORFLOW_GPU_IMAGE if self.gpus else TENSORFLOW_IMAGE)


def refuse_deployed(options: TrainOptions) -> None:
    """Refuses what only a service of KServe, or of this machine, can tell.

    Raises:
        InvalidInput: When the training is to begin with the deployed model.
    """
    if options.initial_model == DEPLOYED:
        raise InvalidInput(
            "initial_model = 'deployed': nobody notes on Vertex AI which model an endpoint has; give the gs:// URI of "
            "its Model artifact"
        )


def worker_pool_specs(job: TrainingJob, machine: Machine) -> list[dict[str, Any]]:
    """The pools of a job: the chief, and where there is more than one worker, the others."""
    job = job.for_devices(machine.gpus)
    machine_spec: dict[str, Any] = {"machine_type": machine.machine_type}
    if machine.gpus:
        machine_spec["accelerator_type"] = machine.accelerator_type
        machine_spec["accelerator_count"] = machine.accelerator_count
    pool = {
        "machine_spec": machine_spec,
        "container_spec": {
            "image_uri": machine.resolved_image,
            "command": ["python", "-m", "kfp_image_classification.components.train.worker"],
            "args": ["--job", job.model_dump_json()],
            "env": [
                {"name": name, "value": value}
                for name, value in WORKER_ENVIRONMENT.items()
                # Here TensorFlow has to ask Google's metadata server who it is, to read Cloud Storage.
                if name != "NO_GCE_CHECK"
            ],
        },
    }
    others = job.options.workers - 1
    return [{**pool, "replica_count": count} for count in (1, others) if count]
