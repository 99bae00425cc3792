from kfp import dsl

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE
from kfp_image_classification.components.deploy.options import ServiceChange
from kfp_image_classification.components.step.options import described_by

# ruff: noqa: B006 - KFP reads the defaults, it never changes them


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False)
@described_by(ServiceChange)
def promote(service_name: str = "image-classifier", namespace: str = "", service: dict = {}):
    """Gives a canary all requests. Its pods go on running; those of the version before are taken away.

    A canary that does not stand all requests gets its share again, and the step fails.
    """
    arguments = locals()
    from kfp_image_classification.components.deploy.kserve.cluster import promote_canary
    from kfp_image_classification.components.deploy.kserve.termination import terminate_with_owner
    from kfp_image_classification.components.deploy.options import ServiceChange
    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.options import options_from
    from kfp_image_classification.components.step.stage_log import stage_log

    terminate_with_owner()
    with reported("promote"):
        change = options_from(ServiceChange, arguments)
        promote_canary(change, stage_log("promote"))
