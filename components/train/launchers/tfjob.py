"""TFJob, the custom resource of the Kubeflow Training Operator 1.x.

See https://www.kubeflow.org/docs/components/trainer/legacy-v1/user-guides/tensorflow/.
"""

from typing import Any

from kfp_image_classification.components.train.job_files import WORKER_PORT
from kfp_image_classification.components.train.launchers.job_kind import JobKind
from kfp_image_classification.components.train.launchers.pod_template import PodTemplate, without_empty

# The operator looks for the container by this name, and gives TF_CONFIG to it alone.
CONTAINER = "tensorflow"
# Also by this name the port that it puts into TF_CONFIG.
PORT_NAME = "tfjob-port"


def _spec(pods: PodTemplate) -> dict[str, Any]:
    settings, workers = pods.options.job, pods.job.options.workers
    replicas = {"Chief": 1, "Worker": workers - 1} if settings.chief else {"Worker": workers}
    backoff_limit = settings.backoff_limit
    if backoff_limit is None:
        # Each start anew costs a failure of every pod.
        backoff_limit = pods.job.options.max_restarts * workers
    spec: dict[str, Any] = {
        "runPolicy": without_empty(
            {
                "cleanPodPolicy": settings.clean_pod_policy,
                "ttlSecondsAfterFinished": settings.ttl_seconds,
                "activeDeadlineSeconds": settings.deadline_seconds,
                "backoffLimit": backoff_limit,
                "schedulingPolicy": settings.scheduling_policy,
            }
        ),
        "tfReplicaSpecs": {
            role: {"replicas": count, "restartPolicy": "ExitCode", "template": _template(pods)}
            for role, count in replicas.items()
            if count
        },
    }
    if not settings.chief:
        # Else the operator would stop the others as soon as the first worker is done.
        spec["successPolicy"] = "AllWorkers"
    return spec


def _template(pods: PodTemplate) -> dict[str, Any]:
    container = {
        "name": CONTAINER,
        "image": pods.options.image(pods.gpus),
        "imagePullPolicy": pods.options.job.image_pull_policy,
        "command": pods.command,
        "args": pods.arguments,
        "env": pods.env,
        "ports": [
            {"name": PORT_NAME, "containerPort": WORKER_PORT},
            {"name": "exchange", "containerPort": WORKER_PORT + 1},
        ],
        "resources": pods.resources,
        "volumeMounts": pods.volume_mounts,
        "securityContext": pods.container_security,
    }
    return {
        "metadata": {"labels": pods.labels, "annotations": pods.annotations},
        "spec": {
            **pods.pod_spec(),
            **without_empty({"priorityClassName": pods.options.job.priority_class}),
            "automountServiceAccountToken": False,
            "containers": [container],
        },
    }


TFJOB = JobKind(
    kind="TFJob",
    group="kubeflow.org",
    version="v1",
    plural="tfjobs",
    operator="Training Operator",
    pod_label="training.kubeflow.org/job-name",
    container=CONTAINER,
    deletion="Foreground",
    spec=_spec,
)
