"""TrainJob, the custom resource of Kubeflow Trainer 2.x, with this project's own runtime for TensorFlow.

Trainer makes a JobSet of the ClusterTrainingRuntime and this job. What the runtime decides (restarts, the time an ended
job is kept) cannot be set here. See https://www.kubeflow.org/docs/components/trainer/.
"""

from typing import Any

from kfp_image_classification.components.train.launchers.job_kind import JobKind
from kfp_image_classification.components.train.launchers.pod_template import PodTemplate, without_empty

# Trainer looks for the replicated job and its container by these names.
REPLICATED_JOB = CONTAINER = "node"
# Trainer's webhook wants a path under a domain (IsDomainPrefixedPath in the plugin jobset).
PATCH_MANAGER = "kfp-image-classification/launcher"
# While a TrainJob is there, Trainer makes its JobSet anew, whose workers start again, though the job is told to go:
# TrainJobReconciler.Reconcile in pkg/controller/trainjob_controller.go of Trainer 2.3 does not look at that.
DELETION = "Background"


def _spec(pods: PodTemplate) -> dict[str, Any]:
    pod_patch = {
        "metadata": {"labels": pods.labels, "annotations": pods.annotations},
        "spec": {
            **pods.pod_spec(),
            "containers": [
                without_empty(
                    {
                        "name": CONTAINER,
                        "volumeMounts": pods.volume_mounts,
                        "securityContext": pods.container_security,
                    }
                )
            ],
        },
    }
    patched_job = {"name": REPLICATED_JOB, "template": {"spec": {"template": pod_patch}}}
    return {
        "runtimeRef": {
            "apiGroup": "trainer.kubeflow.org",
            "kind": "ClusterTrainingRuntime",
            "name": pods.options.job.runtime,
        },
        "activeDeadlineSeconds": pods.options.job.deadline_seconds,
        "trainer": {
            "numNodes": pods.job.options.workers,
            "image": pods.options.image(pods.gpus),
            "command": pods.command,
            "args": pods.arguments,
            "env": pods.env,
            "resourcesPerNode": pods.resources,
        },
        "runtimePatches": [
            {
                "manager": PATCH_MANAGER,
                "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [patched_job]}}},
            }
        ],
    }


TRAINJOB = JobKind(
    kind="TrainJob",
    group="trainer.kubeflow.org",
    version="v1alpha1",
    plural="trainjobs",
    operator="Kubeflow Trainer",
    pod_label="jobset.sigs.k8s.io/jobset-name",
    container=CONTAINER,
    deletion=DELETION,
    spec=_spec,
)
