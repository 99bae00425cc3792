"""Finds the model that a new one has to beat: the one that is deployed."""

import logging
from pathlib import Path

from kfp_image_classification.components.cluster.kubernetes_client import (
    NOT_FOUND,
    api_client,
    explained,
    in_cluster,
    own_namespace,
    patiently,
)
from kfp_image_classification.components.contracts.deployed_model import (
    GROUP,
    PLURAL,
    VERSION,
    DeployedModel,
    champion,
    last_served,
)
from kfp_image_classification.components.contracts.evaluation import NoChampion
from kfp_image_classification.components.select.options import ChampionOptions
from kfp_image_classification.components.step.errors import StageFailed

# What Kubeflow Pipelines fetches artifacts from.
STORES = ("minio://", "s3://", "gs://")


def find_champion_model(options: ChampionOptions, log: logging.Logger) -> DeployedModel | NoChampion:
    """Looks up what is deployed now, on the cluster or, last, on this machine.

    Args:
        options: Where to look, if at all.
        log: Told what was found.

    Raises:
        InvalidInput: When there is no cluster to ask.
        StageFailed: When the cluster does not tell.
    """
    if not options.has_champion:
        return NoChampion()
    if options.to_cluster:
        return _on_cluster(options.service_name, options.namespace, log)
    return _on_this_machine(options.service_name, log)


def within_reach(uri: str) -> bool:
    """Whether a model's files can be had: Kubeflow Pipelines fetches them to a pod; elsewhere they have to be there."""
    return uri.startswith(STORES) if in_cluster() else Path(uri).is_dir()


def _on_this_machine(service_name: str, log: logging.Logger) -> DeployedModel | NoChampion:
    served = last_served(service_name)
    for model in served:
        if Path(model.model_uri).is_dir():
            log.info("the model that was served last, %s, is the one to beat", model.model_type or model.model_uri)
            return model
    if served:
        log.warning("the model that was served last is not at %s any more: no champion", served[0].model_uri)
    return NoChampion()


def _on_cluster(service_name: str, namespace: str, log: logging.Logger) -> DeployedModel | NoChampion:
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
            log.info("no service %s in namespace %s yet: no champion to beat", service_name, place)
            return NoChampion()
        raise StageFailed(
            f"the deployed model to compare with cannot be looked up: {explained(error)}; "
            "force = true deploys without looking"
        ) from None
    found = champion(service)
    if not found.model_uri:
        log.warning("%s does not say where its model comes from: it is not compared", service_name)
        return NoChampion(reason=f"the service {service_name} does not say where its model comes from")
    if not within_reach(found.model_uri):
        return NoChampion(reason=f"its files at {found.model_uri} cannot be reached from here", holds_back=True)
    log.info("%s of run %s is the model to beat", found.model_type or found.model_uri, found.run or "unknown")
    return found
