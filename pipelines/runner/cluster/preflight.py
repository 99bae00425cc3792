"""`--check`: what a cluster lacks for the pipeline, seen from this machine with the user's own kubeconfig."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kfp_image_classification.components.cluster.images import (
    LAUNCHER_IMAGE,
    SERVER_IMAGE,
    TENSORFLOW_GPU_IMAGE,
    TENSORFLOW_IMAGE,
)
from kfp_image_classification.components.cluster.kubernetes_client import NOT_FOUND, api_client, explained, patiently
from kfp_image_classification.components.preflight.checks import Finding, State, check_cluster
from kfp_image_classification.components.preflight.operators import apply_manifests
from kfp_image_classification.components.preflight.options import PreflightOptions
from kfp_image_classification.components.preflight.report import lines, missing
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.pipelines.runner.cluster.image_probe import probe_images

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

NAMESPACE = "kubeflow"
PULL_SECONDS = 120.0
REACH_SECONDS = 5.0
MODEL_ACCOUNT = "model-reader"


def check(parameters: Mapping[str, Any], namespace: str, service_account: str, seconds: float) -> int:
    """Prints what is there and what is missing; returns the exit code, 1 when something is missing.

    Args:
        parameters: Of the pipeline: its backends and its volume claim decide what is needed.
        namespace: Where the pipeline's steps run.
        service_account: As which they run.
        seconds: How long nodes may take to pull the images.

    Raises:
        InvalidInput: When there is no usable kubeconfig.
        StageFailed: When the cluster cannot be reached.
    """
    client = api_client()
    options = PreflightOptions(
        namespace=namespace,
        train_backend=parameters["train_backend"],
        deploy_backend=parameters["deploy_backend"],
        pvc=parameters["pvc"],
        service_account=service_account,
    )
    serves = "kserve" in options.backends
    version = _version(client)
    print(f"checking namespace {namespace} of {client.configuration.host}, Kubernetes {version}", flush=True)
    findings = [
        *_service_accounts(client, namespace, [service_account, *([MODEL_ACCOUNT] if serves else [])], print),
        *check_cluster(client, options, print),
    ]
    # A pod that mounts a claim which is not there would never start.
    claimed = any(
        finding.state is State.OK and finding.what.startswith(f"volume claim {options.pvc} ") for finding in findings
    )
    for_gpus = [TENSORFLOW_GPU_IMAGE] if parameters.get("worker_gpus") and not parameters.get("worker_image") else []
    findings += [
        *probe_images(
            client,
            namespace,
            service_account,
            [TENSORFLOW_IMAGE, *for_gpus, LAUNCHER_IMAGE, *([SERVER_IMAGE] if serves else [])],
            seconds,
            print,
            pvc=options.pvc if claimed else "",
        ),
    ]
    print("\n".join(lines(findings)))
    count = missing(findings)
    print(f"{count} missing" if count else "nothing is missing")
    return 1 if count else 0


def _version(client: "ApiClient") -> str:
    from kubernetes.client import ApiException, VersionApi

    try:
        return str(patiently(client, VersionApi(client).get_code, print, REACH_SECONDS).git_version)
    except ApiException as error:
        raise StageFailed(f"the cluster's API does not let us in: {explained(error)}") from None


def _service_accounts(
    client: "ApiClient", namespace: str, names: list[str], tell: Callable[[str], None]
) -> list[Finding]:
    from kubernetes.client import ApiException, CoreV1Api

    api, findings = CoreV1Api(client), []
    for name in names:
        what = f"service account {name}"
        try:
            patiently(client, lambda name=name: api.read_namespaced_service_account(name, namespace), tell)  # type: ignore[misc]
            findings.append(Finding(State.OK, what))
        except ApiException as error:
            if error.status == NOT_FOUND:
                findings.append(
                    Finding(State.MISSING, f"{what}: there is none in {namespace}", _install(name, namespace))
                )
            else:
                findings.append(Finding(State.UNKNOWN, f"{what}: {explained(error)}"))
    return findings


def _install(account: str, namespace: str) -> str:
    if account == MODEL_ACCOUNT:
        return apply_manifests(namespace)
    return "make cluster (Kubeflow Pipelines brings it), or name the right one with --service-account"
