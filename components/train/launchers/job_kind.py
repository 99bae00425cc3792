"""What sets one kind of training job on a cluster apart from another."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kfp_image_classification.components.train.launchers.pod_template import PodTemplate


@dataclass(frozen=True)
class JobKind:
    """A custom resource that runs training jobs.

    Attributes:
        kind: As in a manifest.
        group: Of the API.
        version: Of the API.
        plural: In the API's paths.
        operator: Who acts on it, for messages.
        pod_label: The label by which its pods name their job.
        container: Name of the container that trains.
        deletion: `Foreground` when the job is to be there until its pods are gone, `Background` when it goes first.
        spec: Makes the manifest's `spec`.
    """

    kind: str
    group: str
    version: str
    plural: str
    operator: str
    pod_label: str
    container: str
    deletion: str
    spec: Callable[[PodTemplate], dict[str, Any]]

    def pod_selector(self, name: str) -> str:
        return f"{self.pod_label}={name}"

    def named(self, job: Mapping[str, Any]) -> str:
        """A job in words."""
        return f"{self.kind} {job['metadata']['name']}"

    def manifest(self, name: str, pods: PodTemplate) -> dict[str, Any]:
        return {
            "apiVersion": f"{self.group}/{self.version}",
            "kind": self.kind,
            "metadata": {
                "name": name,
                "labels": pods.labels,
                "annotations": dict(pods.options.job.annotations),
            },
            "spec": self.spec(pods),
        }
