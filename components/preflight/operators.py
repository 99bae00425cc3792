"""The operators that the pipeline needs on a cluster, and the commands that bring what is missing."""

from dataclasses import dataclass

OVERLAYS_NAMESPACE = "kubeflow"


@dataclass(frozen=True)
class Kind:
    """A kind of object that a backend creates, and how its operator is installed."""

    group: str
    version: str
    plural: str
    kind: str
    install: str


# The versions are those that cluster/versions.sh installs.
KINDS = {
    "tfjob": Kind(
        "kubeflow.org",
        "v1",
        "tfjobs",
        "TFJob",
        'kubectl apply --server-side -k "https://github.com/kubeflow/training-operator.git/manifests/overlays/standalone'
        '?ref=v1.9.3"',
    ),
    "trainjob": Kind(
        "trainer.kubeflow.org",
        "v1alpha1",
        "trainjobs",
        "TrainJob",
        'kubectl apply --server-side -k "https://github.com/kubeflow/trainer.git/manifests/overlays/manager?ref=v2.3.0"',
    ),
    "kserve": Kind(
        "serving.kserve.io",
        "v1beta1",
        "inferenceservices",
        "InferenceService",
        "kubectl apply --server-side -f https://github.com/kserve/kserve/releases/download/v0.21.0/kserve.yaml",
    ),
}


def install_command(backend: str) -> str:
    """The command that installs what a backend creates its objects for."""
    return KINDS[backend].install


def apply_manifests(namespace: str, overlay: str = "local") -> str:
    """The command that brings this project's own objects into a namespace."""
    command = f"kubectl apply --server-side -k manifests/overlays/{overlay}"
    if namespace == OVERLAYS_NAMESPACE:
        return command
    return f"{command}, with namespace {namespace} in its kustomization.yaml"
