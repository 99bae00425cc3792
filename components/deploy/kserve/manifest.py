"""The InferenceService as a manifest, and what deploy, promote and rollback make of the one that is there. Pure.

A version's own things stand in the predictor, its annotations included: the metadata of the service reaches the pods of
every version, so touching it would restart pods that should go on serving.
"""

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kfp_image_classification.components.cluster.kubernetes_client import MANAGED_BY, RUN_LABEL
from kfp_image_classification.components.contracts.deployed_model import (
    GROUP,
    REPLACES_ANNOTATION,
    REVISION_ANNOTATION,
    VERSION,
    DeployedModel,
    replaced_predictor,
)
from kfp_image_classification.components.deploy.kserve.options import KNATIVE_MODES, ServiceOptions
from kfp_image_classification.components.deploy.options import DeployOptions
from kfp_image_classification.components.step.errors import InvalidInput

Manifest = dict[str, Any]

TENSORFLOW_SERVING = "kserve-tensorflow-serving"
# KServe's own name for it; in a canary the definition of InferenceServices asks for it.
CONTAINER = "kserve-container"
MODE_ANNOTATION = "serving.kserve.io/deploymentMode"
# Which keys of the metadata the user's options set last, so that those left out later can be taken away again.
SET_KEYS_ANNOTATION = "kfp-image-classification/set-keys"
MODEL_READER = "model-reader"
_AUTOSCALING_FIELDS = ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget")


def predictor(options: DeployOptions, storage_uri: str, model: DeployedModel, model_digest: str) -> Manifest:
    """One version of the service.

    Args:
        options: What was asked for.
        storage_uri: Where KServe finds the model.
        model: Where the model came from.
        model_digest: Identifies the model's content, so that another model at the same place is another version.
    """
    service = options.service
    served: Manifest = {
        "name": CONTAINER,
        "modelFormat": {"name": service.model_format},
        "runtime": TENSORFLOW_SERVING if options.runtime == "tensorflow" else options.runtime,
        "storageUri": storage_uri,
        **_given(runtimeVersion=service.runtime_version, resources=service.resources),
    }
    spec: Manifest = {
        "minReplicas": options.min_replicas,
        "maxReplicas": options.max_replicas,
        **_given(
            scaleMetric=service.scale_metric,
            scaleTarget=service.scale_target,
            containerConcurrency=service.container_concurrency,
            serviceAccountName=_service_account(service, storage_uri),
            nodeSelector=service.node_selector,
            tolerations=[_given(**toleration.model_dump()) for toleration in service.tolerations],
            imagePullSecrets=[{"name": name} for name in service.image_pull_secrets],
            logger=service.logger and service.logger.model_dump(),
            batcher=service.batcher
            and {
                "maxBatchSize": service.batcher.max_batch_size,
                "maxLatency": service.batcher.max_latency,
                "timeout": service.batcher.timeout,
            },
        ),
        "model": served,
    }
    revision = _digest([spec, _user_annotations(service), service.labels, model_digest])
    spec["annotations"] = {**_user_annotations(service), **model.annotations(), REVISION_ANNOTATION: revision}
    spec["labels"] = {**service.labels, **MANAGED_BY, **_given(**{RUN_LABEL: model.run})}
    return spec


def new_service(name: str, namespace: str, options: DeployOptions, version: Manifest) -> Manifest:
    """A service that does not exist yet, with its first version.

    Raises:
        InvalidInput: When the first version is asked to be a canary.
    """
    if options.canary_percent:
        raise InvalidInput(
            f"canary_percent = {options.canary_percent}: there is no service {name!r} to get the other requests; "
            "deploy a first version with canary_percent = 0"
        )
    service: Manifest = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**MANAGED_BY, **_given(**{RUN_LABEL: version["labels"].get(RUN_LABEL)})},
            "annotations": {MODE_ANNOTATION: options.service.deployment_mode},
        },
        "spec": {"predictor": version},
    }
    _set_user_keys(service["metadata"], options.service)
    return service


def with_version(live: Manifest, options: DeployOptions, version: Manifest) -> Manifest:
    """The service that is there, with another version: in the place of the one it has, or as a canary beside it.

    Fields that this version does not have go away. The version that is there is kept in an annotation of the new one,
    for `rollback`. The same version again is the same manifest again.

    Raises:
        InvalidInput: When the service is not ours, or is in another deployment mode.
    """
    name = live["metadata"]["name"]
    if not options.service.adopt and MANAGED_BY.items() - (live["metadata"].get("labels") or {}).items():
        raise InvalidInput(
            f"service_name = {name!r}: there is such an InferenceService, which this component did not make; choose "
            "another name, or give service.adopt = true to take it over"
        )
    if is_knative(live) != options.service.is_knative:
        raise InvalidInput(
            f"service.deployment_mode = {options.service.deployment_mode!r}: {name} is in mode "
            f"{deployment_mode(live)}, which cannot change while a service exists; deploy under another "
            "name, or delete the service first"
        )
    service = _writable(live)
    if options.canary_percent and not options.service.is_knative:
        return _with_standard_canary(service, options, version)
    current = service["spec"]["predictor"]
    stable = _stable(service)
    wanted = copy.deepcopy(version)
    if options.canary_percent:
        if revision_of(stable) == revision_of(version):
            raise _is_served_already(options, name)
        wanted["canaryTrafficPercent"] = options.canary_percent
    if revision_of(current) == revision_of(version):
        # The same version: only who deployed it differs, and to note that would restart its pods.
        for part in ("annotations", "labels"):
            wanted[part] = current.get(part, {})
    else:
        _note_replaced(wanted, stable)
    if "name" in current:  # a promoted canary: another name would be another Deployment
        wanted["name"] = current["name"]
    service["spec"] = {"predictor": wanted}
    service["metadata"]["annotations"].setdefault(MODE_ANNOTATION, options.service.deployment_mode)
    service["metadata"]["labels"].update(MANAGED_BY)
    _set_user_keys(service["metadata"], options.service)
    return service


def promoted(live: Manifest) -> Manifest:
    """The service with its canary as the only version, whose pods go on running.

    Raises:
        InvalidInput: When there is no canary.
    """
    service = _writable(live)
    spec = service["spec"]
    if is_canary_under_way(service) and not spec.get("canary"):
        del spec["predictor"]["canaryTrafficPercent"]
    elif spec.get("canary"):
        stable, canary = spec["predictor"], spec.pop("canary")[0]["predictor"]
        # A canary has no numbers of replicas of its own: it takes over those of the version it replaces.
        spec["predictor"] = canary | {name: stable[name] for name in _AUTOSCALING_FIELDS if name in stable}
    else:
        raise InvalidInput(f"service_name = {live['metadata']['name']!r}: no canary is under way, nothing to promote")
    return service


def rolled_back(live: Manifest) -> Manifest:
    """The service without its canary or, without a canary, with the version that the present one replaced.

    Raises:
        InvalidInput: When there is nothing to go back to.
    """
    service = _writable(live)
    spec = service["spec"]
    if spec.get("canary"):
        del spec["canary"]
        return service
    replaced = replaced_predictor(spec["predictor"])
    if replaced is None:
        raise InvalidInput(
            f"service_name = {live['metadata']['name']!r}: its version replaced none that is known, nothing to go back "
            "to"
        )
    if "name" in spec["predictor"]:
        replaced["name"] = spec["predictor"]["name"]
    spec["predictor"] = replaced
    return service


def restored(live: Manifest, before: Manifest) -> Manifest:
    """The service as it was: spec, labels and annotations."""
    service, old = _writable(live), _writable(before)
    service["spec"] = old["spec"]
    for part in ("labels", "annotations"):
        service["metadata"][part] = old["metadata"][part]
    return service


def newest_version(service: Manifest) -> Manifest:
    """The predictor that was deployed last: the canary where one is under way."""
    canaries = service["spec"].get("canary")
    version: Manifest = canaries[0]["predictor"] if canaries else service["spec"]["predictor"]
    return version


def canary_percent(service: Manifest) -> int:
    """The share of requests that the newest version is to get."""
    canaries = service["spec"].get("canary")
    if canaries:
        return int(canaries[0]["trafficPercent"])
    return int(service["spec"]["predictor"].get("canaryTrafficPercent", 100))


def is_canary_under_way(service: Manifest) -> bool:
    return canary_percent(service) < 100


def revision_of(version: Mapping[str, Any]) -> str:
    """Identifies a version; empty for one that was not deployed by this component."""
    return str((version.get("annotations") or {}).get(REVISION_ANNOTATION, ""))


def deployment_mode(service: Manifest) -> str:
    """As KServe says it, or else as the service asks for it; Knative where neither does, as KServe's own default."""
    asked = (service["metadata"].get("annotations") or {}).get(MODE_ANNOTATION)
    return str((service.get("status") or {}).get("deploymentMode") or asked or "Knative")


def is_knative(service: Manifest) -> bool:
    return deployment_mode(service) in KNATIVE_MODES


def _with_standard_canary(service: Manifest, options: DeployOptions, version: Manifest) -> Manifest:
    stable = service["spec"]["predictor"]
    if revision_of(stable) == revision_of(version):
        raise _is_served_already(options, service["metadata"]["name"])
    canary = {key: value for key, value in copy.deepcopy(version).items() if key not in _AUTOSCALING_FIELDS}
    canary["name"] = f"v{revision_of(version)[:8]}"
    current = newest_version(service)
    if revision_of(current) == revision_of(version):
        canary.update(annotations=current["annotations"], labels=current["labels"])
    else:
        _note_replaced(canary, stable)
    service["spec"]["canary"] = [{"trafficPercent": options.canary_percent, "predictor": canary}]
    return service


def _is_served_already(options: DeployOptions, name: str) -> InvalidInput:
    return InvalidInput(
        f"canary_percent = {options.canary_percent}: the stable version of {name} is this very model with these very "
        "options already"
    )


def _stable(service: Manifest) -> Manifest:
    """The version to go back to: during a canary on Knative, where the spec is the canary's, the one before it."""
    current: Manifest = service["spec"]["predictor"]
    if current.get("canaryTrafficPercent", 100) < 100:
        return replaced_predictor(current) or current
    return current


def _note_replaced(version: Manifest, replaced: Manifest) -> None:
    older = copy.deepcopy(replaced)
    (older.get("annotations") or {}).pop(REPLACES_ANNOTATION, None)  # one step back, not a chain of all
    for field in ("name", "canaryTrafficPercent"):
        older.pop(field, None)
    version["annotations"][REPLACES_ANNOTATION] = json.dumps(older, sort_keys=True)


def _set_user_keys(metadata: Manifest, service: ServiceOptions) -> None:
    before = metadata["annotations"].pop(SET_KEYS_ANNOTATION, "").split()
    for part in ("labels", "annotations"):
        for key in before:
            metadata[part].pop(key, None)
    annotations = _user_annotations(service)
    metadata["labels"].update(service.labels)
    metadata["annotations"].update(annotations)
    keys = sorted({*service.labels, *annotations})
    if keys:
        metadata["annotations"][SET_KEYS_ANNOTATION] = " ".join(keys)


def _user_annotations(service: ServiceOptions) -> dict[str, str]:
    target = {"autoscaling.knative.dev/target": str(service.autoscaling_target)} if service.autoscaling_target else {}
    return {**service.annotations, **target}


def _service_account(service: ServiceOptions, storage_uri: str) -> str:
    if service.service_account is None:
        return MODEL_READER if storage_uri.startswith("s3://") else ""
    return service.service_account


def _writable(service: Manifest) -> Manifest:
    """A copy without the status, with maps of labels and annotations."""
    copied = {key: copy.deepcopy(value) for key, value in service.items() if key != "status"}
    for part in ("labels", "annotations"):
        copied["metadata"][part] = copied["metadata"].get(part) or {}
    copied["metadata"].pop("managedFields", None)
    return copied


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "", 0, {}, [])}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
