"""Prepares a job for a cluster: checks that its workers will find what they need, and makes its launcher."""

import logging
from pathlib import Path

from kfp_image_classification.components.cluster.kubernetes_client import api_client
from kfp_image_classification.components.cluster.storage import run_id, storage_path
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.step.errors import InvalidInput, run_checks
from kfp_image_classification.components.train.job_folder import claim_directory, share_dataset
from kfp_image_classification.components.train.launchers.job_options import JobOptions, check_backend, check_waiting
from kfp_image_classification.components.train.launchers.kubernetes_launcher import KubernetesLauncher
from kfp_image_classification.components.train.launchers.naming import job_name
from kfp_image_classification.components.train.launchers.pod_template import PodTemplate, TaskSettings
from kfp_image_classification.components.train.launchers.tfjob import TFJOB
from kfp_image_classification.components.train.launchers.trainjob import TRAINJOB
from kfp_image_classification.components.train.options import Devices, TrainingJob

JOB_KINDS = {"tfjob": TFJOB, "trainjob": TRAINJOB}


def cluster_job(
    job: TrainingJob, options: JobOptions, task: TaskSettings, log: logging.Logger
) -> tuple[TrainingJob, KubernetesLauncher]:
    """Makes a job ready for pods that share nothing with this step but a volume.

    Returns:
        The job as the workers see it, and what launches it.

    Raises:
        InvalidInput: When no volume is shared, or the backend cannot do what is asked.
        StageFailed: When the volume cannot be written.
    """
    backend = job.options.resolved_backend
    pods = PodTemplate(job, options, task, run_id(), str(storage_path()))
    run_checks(
        [
            lambda: check_backend(options, backend),
            lambda: check_waiting(job.options.peer_seconds, options),
            lambda: check_devices(job.options.devices, pods.gpus, options.job.gpu_resource),
            lambda: _check_claim(pods),
            lambda: _check_shared(pods),
        ]
    )
    client = api_client()
    # As its folder: see job_directory.
    identity = TrainingJob.identity_of(job.options, job.dataset)
    name = job_name(run_id() or job.directory, job.options.model_type, identity)
    claim_directory(job)
    job = share_dataset(job).for_devices(pods.gpus)
    pods = PodTemplate(job, options, task, pods.run_id, pods.mount_path)
    return job, KubernetesLauncher(client, JOB_KINDS[backend], name, pods, log)


def check_devices(devices: Devices, gpus: int, gpu_resource: str) -> None:
    """Checks that pods have the GPUs on which they are to compute, and no others.

    Raises:
        InvalidInput: When they have not.
    """
    if devices == "gpu" and not gpus:
        raise InvalidInput(
            "devices = 'gpu': a worker of a cluster has the GPUs that its pod asks for, and it asks for none; set "
            f"worker_gpus, or a limit of {gpu_resource} on the task"
        )
    if devices == "cpu" and gpus:
        raise InvalidInput(f"devices = 'cpu': each worker would have {gpus} GPUs and not use them; set worker_gpus = 0")


def _check_claim(pods: PodTemplate) -> None:
    mounted = pods.mounted_claim
    if pods.options.pvc and mounted not in ("", pods.options.pvc):
        raise InvalidInput(
            f"pvc = {pods.options.pvc!r}: the step has the claim {mounted!r} at {pods.mount_path}, and its workers "
            "must have the same; give that one, or mount the other into the step with mount_storage(task, pvc)"
        )


def _check_shared(pods: PodTemplate) -> None:
    mounted = [Path(mount.get("mountPath", "")) for mount in pods.volume_mounts]
    directory, root = Path(pods.job.directory), Dataset(pods.job.dataset).manifest.root
    if not any(directory.is_relative_to(path) for path in mounted):
        raise InvalidInput(
            f"pvc = {pods.options.pvc!r}: the workers' pods do not share {directory} with this step; mount a volume "
            "into the step with mount_storage(task, pvc) from components/cluster/storage.py, and give its claim as pvc"
        )
    if root and not any(Path(root).is_relative_to(path) for path in mounted):
        raise InvalidInput(
            f"shards: the data set lies in {root}, which is on no volume of the workers' pods; ingest it onto the same "
            "volume"
        )
