from kfp import dsl

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE
from kfp_image_classification.components.deploy.options import ServiceChange
from kfp_image_classification.components.step.options import described_by

# ruff: noqa: B006 - KFP reads the defaults, it never changes them


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False)
@described_by(ServiceChange)
def rollback(service_name: str = "image-classifier", namespace: str = "", service: dict = {}):
    """Takes a canary away or, where none is under way, brings back the version that the present one replaced.

    An older version that does not become ready is given up, and the step fails with the service as it was.
    """
    arguments = locals()
    from kfp_image_classification.components.deploy.kserve.cluster import roll_back
    from kfp_image_classification.components.deploy.kserve.termination import terminate_with_owner
    from kfp_image_classification.components.deploy.options import ServiceChange
    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.options import options_from
    from kfp_image_classification.components.step.stage_log import stage_log

    terminate_with_owner()
    with reported("rollback"):
        change = options_from(ServiceChange, arguments)
        roll_back(change, stage_log("rollback"))
