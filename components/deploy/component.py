from kfp import dsl

from components.images import LAUNCHER_IMAGE


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False)
def deploy(
    model: dsl.Input[dsl.Model],
    endpoint: dsl.Output[dsl.Artifact],
    backend: str = "local",
    service_name: str = "image-classifier",
    service_port: int = 0,
):
    """Deploys a model and lets it answer a smoke prediction before calling that a success.

    Args:
        model: A model from train or select.
        endpoint: `endpoint.json` with the service's address, and `request.json`, an example request.
        backend: What serves the model: `local`, a KServe model server process on this machine.
        service_name: Name of the service, and of the model in its URLs; a DNS label.
        service_port: Port of the local server; 0 for any free one.
    """
    from pathlib import Path

    from components.deploy.options import DeployOptions
    from components.errors import checked, reported
    from components.process_owner import leave_with_owner
    from components.stage_log import stage_log

    leave_with_owner()
    with reported("deploy"):
        options = checked(DeployOptions, backend=backend, service_name=service_name, service_port=service_port)
        from components.deploy.local_server import deploy_locally

        deployed = deploy_locally(Path(model.path), options, Path(endpoint.path), stage_log("deploy"))
        endpoint.metadata.update({"url": deployed.url, "predict_url": deployed.predict_url, "name": deployed.name})
