from kfp import dsl

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE
from kfp_image_classification.components.deploy.options import DeployOptions
from kfp_image_classification.components.step.options import described_by

# ruff: noqa: B006 - KFP reads the defaults, it never changes them


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False)
@described_by(DeployOptions)
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
    """
    arguments = locals()
    from pathlib import Path

    from kfp_image_classification.components.cluster.local_backend import deploy_backend_problem, refuse_in_pod
    from kfp_image_classification.components.deploy.options import DeployOptions
    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.options import options_from
    from kfp_image_classification.components.step.process_start import start_process
    from kfp_image_classification.components.step.stage_log import stage_log
    from kfp_image_classification.components.step.termination import tell_to_end

    start_process(tell_to_end)
    with reported("deploy"):
        options = options_from(DeployOptions, arguments)
        refuse_in_pod(deploy_backend_problem("backend", options.backend))
        log = stage_log("deploy")
        if options.to_cluster:
            from kfp_image_classification.components.cluster.storage import run_id
            from kfp_image_classification.components.contracts.deployed_model import DeployedModel
            from kfp_image_classification.components.deploy.kserve.cluster import deploy_to_cluster

            source = DeployedModel.of_artifact(model.uri, model.metadata, run_id())
            deployed = deploy_to_cluster(Path(model.path), source, options, Path(endpoint.path), log)
        else:
            from kfp_image_classification.components.contracts.deployed_model import note_served
            from kfp_image_classification.components.deploy.local_server import deploy_locally

            deployed = deploy_locally(Path(model.path), options, Path(endpoint.path), log)
            note_served(options.service_name, model.uri, model.metadata)
        endpoint.metadata.update({"url": deployed.url, "predict_url": deployed.predict_url, "name": deployed.name})
