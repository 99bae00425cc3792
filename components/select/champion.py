"""Finds the model that a new one has to match: the one that is deployed."""

import logging

from kfp_image_classification.components.cluster.kubernetes_client import (
    NOT_FOUND,
    api_client,
    explained,
    own_namespace,
    patiently,
)
from kfp_image_classification.components.contracts.deployed_model import GROUP, PLURAL, VERSION, DeployedModel, champion
from kfp_image_classification.components.step.errors import StageFailed


def find_champion(service_name: str, namespace: str, log: logging.Logger) -> DeployedModel | None:
    """Reads what an InferenceService says of its model.

    Args:
        service_name: Name of the service.
        namespace: Where it is; empty for the namespace of this step, or of the current kubeconfig.
        log: Told what was found.

    Returns:
        The model; None when nothing is deployed, or its validation accuracy is not known.

    Raises:
        InvalidInput: When there is no cluster to ask.
        StageFailed: When the cluster does not tell.
    """
    from kubernetes.client import ApiException, CustomObjectsApi

    client, place = api_client(), namespace or own_namespace()
    try:
        service = patiently(
            client,
            lambda: CustomObjectsApi(client).get_namespaced_custom_object(GROUP, VERSION, place, PLURAL, service_name),
            log.warning,
        )
    except ApiException as error:
        if error.status == NOT_FOUND:
            log.info("no service %s in namespace %s yet: no champion to match", service_name, place)
            return None
        raise StageFailed(
            f"the deployed model to compare with cannot be looked up: {explained(error)}; "
            "force = true deploys without looking"
        ) from None
    found = champion(service)
    if found.val_accuracy is None:
        log.warning("%s does not say what validation accuracy its model has: it is not compared", service_name)
        return None
    return found
