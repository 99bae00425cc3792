from kfp import dsl

from kfp_image_classification.components.cluster.images import LAUNCHER_IMAGE


@dsl.component(base_image=LAUNCHER_IMAGE, install_kfp_package=False)
def preflight(train_backend: str = "auto", deploy_backend: str = "auto", pvc: str = ""):
    """Looks whether the cluster has what the pipeline needs; outside of one there is nothing to look at.

    Args:
        train_backend: As for train: `auto`, `tfjob`, `trainjob` or `local`.
        deploy_backend: As for deploy: `auto`, `kserve` or `local`.
        pvc: The volume claim that the steps and the training workers mount; empty for none.
    """
    from kfp_image_classification.components.preflight.report import check_own_cluster
    from kfp_image_classification.components.step.errors import reported
    from kfp_image_classification.components.step.process_start import start_process
    from kfp_image_classification.components.step.stage_log import stage_log

    start_process()
    with reported("preflight"):
        check_own_cluster(train_backend, deploy_backend, pvc, stage_log("preflight"))
