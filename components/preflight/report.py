"""Tells what a preflight found: to a person at a terminal, or in a step's log."""

from collections.abc import Iterable
from logging import Logger

from kfp_image_classification.components.cluster.kubernetes_client import api_client, in_cluster, own_namespace
from kfp_image_classification.components.cluster.local_backend import in_step_pod
from kfp_image_classification.components.preflight.checks import Finding, State, check_cluster
from kfp_image_classification.components.preflight.options import PreflightOptions
from kfp_image_classification.components.step.errors import StageFailed


def lines(findings: Iterable[Finding]) -> list[str]:
    """One line a finding, and under one that is missing the command that mends it."""
    told = []
    for finding in findings:
        told.append(f"{finding.state:<8} {finding.what}")
        if finding.state is not State.OK and finding.remedy:
            told.append(f"{'':8} mend it with: {finding.remedy}")
    return told


def missing(findings: Iterable[Finding]) -> int:
    return sum(finding.state is State.MISSING for finding in findings)


def check_own_cluster(train_backend: str, deploy_backend: str, pvc: str, log: Logger) -> None:
    """Checks the cluster that this step runs in, with the step's own permissions.

    Raises:
        StageFailed: When something is missing; what it is has been told by then.
    """
    if not in_cluster():
        log.info("not in a cluster: nothing to check")
        return
    options = PreflightOptions(
        namespace=own_namespace(),
        train_backend=train_backend,
        deploy_backend=deploy_backend,
        pvc=pvc,
        in_pods=in_step_pod(),
    )
    findings = check_cluster(api_client(), options, tell=log.info)
    for line in lines(findings):
        log.info(line)
    if count := missing(findings):
        raise StageFailed(f"the cluster lacks {count} thing{'s' * (count > 1)} that the pipeline needs; see above")
