"""Deploys to KServe; promotes and rolls back what is deployed."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kfp_image_classification.components.cluster.kubernetes_client import api_client, in_cluster, own_namespace
from kfp_image_classification.components.contracts.deployed_model import DeployedModel
from kfp_image_classification.components.contracts.model_card import (
    MODEL_CARD,
    ModelCard,
    newest_version,
    read_model_card,
)
from kfp_image_classification.components.deploy.endpoint import REQUEST_FILE, Endpoint
from kfp_image_classification.components.deploy.kserve import manifest
from kfp_image_classification.components.deploy.kserve.address import Address, service_address
from kfp_image_classification.components.deploy.kserve.client import InferenceServices
from kfp_image_classification.components.deploy.kserve.missing_role import check_permissions
from kfp_image_classification.components.deploy.kserve.rollout import Rollout
from kfp_image_classification.components.deploy.kserve.runtimes import check_runtime
from kfp_image_classification.components.deploy.kserve.storage_uri import kserve_storage_uri
from kfp_image_classification.components.deploy.options import DeployOptions, ServiceChange
from kfp_image_classification.components.deploy.smoke import (
    meet_canary,
    request_body,
    shown_example,
    smoke_predict_patiently,
    wait_for_model,
)
from kfp_image_classification.components.step.errors import InvalidInput

Object = dict[str, Any]


def deploy_to_cluster(
    model_directory: Path, model: DeployedModel, options: DeployOptions, directory: Path, log: logging.Logger
) -> Endpoint:
    """Creates or updates an InferenceService, and returns once the new version has answered a smoke prediction.

    Args:
        model_directory: The model as this step sees it, for its examples.
        model: Where the model came from.
        options: Name and settings of the service.
        directory: Folder to make for an example request and the endpoint's description.
        log: Told what happens.

    Raises:
        InvalidInput: When the options do not fit the model's place or the service that is there; nothing is changed.
        StageFailed: When the new version does not serve; the service is then as it was before.
    """
    card = read_model_card(model_directory)
    storage_uri = kserve_storage_uri(model.model_uri, options.service.storage_uri)
    digest = hashlib.sha256((newest_version(model_directory) / MODEL_CARD).read_bytes()).hexdigest()
    version = manifest.predictor(options, storage_uri, model, digest)
    services = _services(options.namespace, log)
    name = options.service_name
    check_runtime(services.client, services.namespace, options.runtime, version["model"]["runtime"], log)

    def change(live: Object | None) -> Object:
        if live is None:
            return manifest.new_service(name, services.namespace, options, version)
        return manifest.with_version(live, options, version)

    rollout = Rollout(services, name, options.service, log)
    with rollout.undone_on_failure():
        if rollout.apply(change):
            log.info("%s in namespace %s: told KServe to serve %s", name, services.namespace, storage_uri)
        else:
            log.info("%s in namespace %s serves %s already; nothing to change", name, services.namespace, storage_uri)
        service = rollout.wait_until_ready()
        address = service_address(service, in_cluster(), options.service.ingress_url)
        predictions = _smoke_prediction(address, card, options)
    shown = shown_example(card, [str(prediction["label"]) for prediction in predictions])
    endpoint = Endpoint(
        name=name,
        namespace=services.namespace,
        url=address.url,
        host=address.headers.get("Host", ""),
        model_directory=storage_uri,
        example_label=card.examples[shown].label,
        example_answer=predictions[shown]["label"],
        example_probability=max(predictions[shown]["probabilities"]),
    )
    directory.mkdir(parents=True, exist_ok=True)
    (directory / REQUEST_FILE).write_text(json.dumps(request_body([card.examples[shown]])), encoding="utf-8")
    endpoint.write(directory)
    log.info("serving at %s; smoke prediction of %d images answered right", endpoint.predict_url, len(predictions))
    return endpoint


def promote_canary(change: ServiceChange, log: logging.Logger) -> None:
    """Gives a canary all requests, under the address that the service has.

    Its version takes the stable one's place first, pod by pod; the canary goes when that serves.

    Raises:
        InvalidInput: When no canary is under way.
        StageFailed: When it does not serve them; the canary is then as it was before.
    """
    _change(change, [manifest.taken_over, manifest.promoted], "the canary's version gets all requests", log)


def roll_back(change: ServiceChange, log: logging.Logger) -> None:
    """Takes a canary away or, where there is none, brings back the version that the present one replaced.

    Raises:
        InvalidInput: When there is nothing to go back to.
        StageFailed: When the older version does not serve; the service is then as it was before.
    """
    _change(change, [manifest.rolled_back], "rolled back", log)


def _change(asked: ServiceChange, steps: Sequence[Callable[[Object], Object]], done: str, log: logging.Logger) -> None:
    services, name, options = _services(asked.namespace, log), asked.service_name, asked.service

    def existing(live: Object | None) -> Object:
        if live is None:
            raise InvalidInput(f"service_name = {name!r}: no such InferenceService in namespace {services.namespace}")
        return live

    rollout = Rollout(services, name, options, log)
    with rollout.undone_on_failure():
        for step in steps:
            rollout.apply(lambda live, step=step: step(existing(live)))  # type: ignore[misc]
            service = rollout.wait_until_ready()
        address = service_address(service, in_cluster(), options.ingress_url)
        wait_for_model(address.model_url(name), address.headers, options.smoke_seconds)
    model = DeployedModel.of_predictor(manifest.newest_version(service))
    log.info("%s: %s; it serves %s of run %s", name, done, model.model_uri or "a model", model.run or "(not known)")


def _services(namespace: str, log: logging.Logger) -> InferenceServices:
    client, place = api_client(), namespace or own_namespace()
    check_permissions(client, place, log.warning)
    return InferenceServices(client, place, log)


def _smoke_prediction(address: Address, card: ModelCard, options: DeployOptions) -> list[dict[str, Any]]:
    url, service = f"{address.model_url(options.service_name)}:predict", options.service
    if options.canary_percent:
        return meet_canary(
            url, card, address.headers, options.canary_percent, service.smoke_seconds, service.route_seconds
        )
    return smoke_predict_patiently(url, card, address.headers, service.smoke_seconds, service.settle_seconds)
