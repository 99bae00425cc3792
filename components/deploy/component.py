from kfp import dsl

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE

# ruff: noqa: B006 - KFP reads the defaults, it never changes them


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False)
def deploy(
    model: dsl.Input[dsl.Model],
    endpoint: dsl.Output[dsl.Artifact],
    backend: str = "auto",
    service_name: str = "image-classifier",
    service_port: int = 0,
    namespace: str = "",
    runtime: str = "tensorflow",
    min_replicas: int = 1,
    max_replicas: int = 3,
    canary_percent: int = 0,
    service: dict = {},
):
    """Deploys a model and lets it answer a smoke prediction before calling that a success.

    On a cluster, a deployment that fails leaves the service as it was before.

    Args:
        model: A model from train or select.
        endpoint: `endpoint.json` with the service's address, and `request.json`, an example request.
        backend: What serves the model: `local`, a model server process on this machine; `kserve`, an InferenceService;
            `auto`, the latter when the step runs in a pod.
        service_name: Name of the service, and of the model in its URLs; a DNS label.
        service_port: Port of the local server; 0 for any free one.
        namespace: Where the InferenceService is; empty for the namespace of the step.
        runtime: What serves on a cluster: `tensorflow`, KServe's TensorFlow Serving, or another runtime's name.
        min_replicas: Replicas on a cluster, at least; 0 with Knative alone.
        max_replicas: Replicas on a cluster, at most.
        canary_percent: Share of the requests that go to the new version beside the old one; 0 for all of them.
        service: The rarer settings of the InferenceService; see `components/deploy/kserve/options.py`.
    """
    from pathlib import Path

    from kfp_image_classification.components.cluster.local_backend import deploy_backend_problem, refuse_in_pod
    from kfp_image_classification.components.deploy.kserve.termination import terminate_with_owner
    from kfp_image_classification.components.deploy.options import DeployOptions
    from kfp_image_classification.components.step.errors import checked, reported
    from kfp_image_classification.components.step.stage_log import stage_log

    terminate_with_owner()
    with reported("deploy"):
        options = checked(
            DeployOptions,
            backend=backend,
            service_name=service_name,
            service_port=service_port,
            namespace=namespace,
            runtime=runtime,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            canary_percent=canary_percent,
            service=service,
        )
        refuse_in_pod(deploy_backend_problem("backend", options.backend))
        log = stage_log("deploy")
        if options.to_cluster:
            from kfp_image_classification.components.cluster.storage import run_id
            from kfp_image_classification.components.contracts.deployed_model import DeployedModel
            from kfp_image_classification.components.deploy.kserve.cluster import deploy_to_cluster

            source = DeployedModel.of_artifact(model.uri, model.metadata, run_id())
            deployed = deploy_to_cluster(Path(model.path), source, options, Path(endpoint.path), log)
        else:
            from kfp_image_classification.components.deploy.local_server import deploy_locally

            deployed = deploy_locally(Path(model.path), options, Path(endpoint.path), log)
        endpoint.metadata.update({"url": deployed.url, "predict_url": deployed.predict_url, "name": deployed.name})
