"""The InferenceService as a manifest, and what deploy, promote and rollback make of the one that is there. Pure.

A version's own things stand in the predictor, its annotations included: the metadata of the service reaches the pods of
every version, so touching it would restart pods that should go on serving.
"""

import copy
import hashlib
import json
import math
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
# What KServe calls it. A canary must name it, by the definition of InferenceServices; a predictor must not: KServe's
# webhook refuses it since 0.16, and older releases take it for granted.
CONTAINER = "kserve-container"
MODE_ANNOTATION = "serving.kserve.io/deploymentMode"
# Which keys of the metadata the user's options set last, so that those left out later can be taken away again.
SET_KEYS_ANNOTATION = "kfp-image-classification/set-keys"
MODEL_READER = "model-reader"
# A canary has a fixed number of replicas. KServe gives it an autoscaler all the same and leaves that behind when the
# canary goes, except where the canary asks for none.
AUTOSCALER_ANNOTATION = "serving.kserve.io/autoscalerClass"
NO_AUTOSCALER = "none"
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
            logger=service.logger and service.logger.manifest(),
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
    if "name" in current:  # by which its Deployment and its address are called
        wanted["name"] = current["name"]
    service["spec"] = {"predictor": wanted}
    service["metadata"]["annotations"].setdefault(MODE_ANNOTATION, options.service.deployment_mode)
    service["metadata"]["labels"].update(MANAGED_BY)
    _set_user_keys(service["metadata"], options.service)
    return service


def taken_over(live: Manifest) -> Manifest:
    """The service with its canary's version in the stable place too, enough of it for all requests; the canary stays.

    KServe can also take a canary's pods for the stable ones, but calls the Service in front of them by the canary's
    name then: the service's address in the cluster would be another one.

    Raises:
        InvalidInput: When there is no canary.
    """
    service = _writable(live)
    spec = service["spec"]
    if not is_canary_under_way(service):
        raise InvalidInput(f"service_name = {live['metadata']['name']!r}: no canary is under way, nothing to promote")
    if spec.get("canary"):
        canary = spec["canary"][0]["predictor"]
        spec["predictor"] = _with_canarys_version(service)
        # KServe takes a canary's replicas off those of the stable version.
        least = spec["predictor"].get("minReplicas", 1) + canary.get("minReplicas", 0)
        spec["predictor"]["minReplicas"] = least
        if "maxReplicas" in spec["predictor"]:
            spec["predictor"]["maxReplicas"] = max(least, spec["predictor"]["maxReplicas"])
    return service


def promoted(live: Manifest) -> Manifest:
    """The service with its canary's version as the only one; in Standard mode after `taken_over`.

    Raises:
        InvalidInput: When there is no canary.
    """
    service = taken_over(live)
    spec = service["spec"]
    if spec.get("canary"):
        spec["predictor"] = _with_canarys_version(service)
        del spec["canary"]
    else:
        del spec["predictor"]["canaryTrafficPercent"]
    return service


def rolled_back(live: Manifest) -> Manifest:
    """The service without its canary or, without a canary, with the version that the present one replaced.

    A canary whose promotion was cut short has its version in the stable place already: both go.

    Raises:
        InvalidInput: When there is nothing to go back to.
    """
    service = _writable(live)
    spec = service["spec"]
    canaries = spec.pop("canary", [])
    if canaries and not _is_placed(spec["predictor"], canaries[0]["predictor"]):
        return service
    replaced = replaced_predictor(spec["predictor"])
    if replaced is None:
        raise InvalidInput(
            f"service_name = {live['metadata']['name']!r}: its version replaced none that is known, nothing to go back "
            "to"
        )
    spec["predictor"] = _in_place_of(spec["predictor"], replaced)
    return service


def restored(live: Manifest, before: Manifest) -> Manifest:
    """The service as it was: spec, labels and annotations; but for what KServe would refuse by now."""
    service, old = _writable(live), _writable(before)
    service["spec"] = old["spec"]
    service["spec"]["predictor"] = _admissible(old["spec"]["predictor"])
    for part in ("labels", "annotations"):
        service["metadata"][part] = old["metadata"][part]
    return service


def without_requests(live: Manifest, wanted: Manifest) -> Manifest | None:
    """The service with no requests for the canaries that `wanted` does not have; None when they get none as it is.

    KServe removes a canary before the ingress stops sending requests to it: they would fail. It goes without failures
    when it gets none.
    """
    kept = {canary["predictor"]["name"] for canary in wanted["spec"].get("canary") or []}
    statuses = (live.get("status") or {}).get("canaryStatuses") or []
    reached = {entry.get("name") for entry in statuses if entry.get("ready")}
    service = _writable(live)
    found = False
    for canary in service["spec"].get("canary") or []:
        name = canary["predictor"]["name"]
        if name not in kept and name in reached and canary["trafficPercent"]:
            canary["trafficPercent"] = 0
            found = True
    return service if found else None


def newest_version(service: Manifest) -> Manifest:
    """The predictor that was deployed last: the canary where one is under way."""
    canaries = service["spec"].get("canary")
    version: Manifest = canaries[0]["predictor"] if canaries else service["spec"]["predictor"]
    return version


def versions(service: Manifest) -> list[Manifest]:
    """The predictors that there are: the stable one, then the canaries of Standard mode."""
    return [service["spec"]["predictor"], *(canary["predictor"] for canary in service["spec"].get("canary") or [])]


def replicas(service: Manifest, version: Manifest) -> int:
    """How many replicas of a version there are to be, at least: KServe takes a canary's off the stable one's."""
    stable, *canaries = versions(service)
    least = int(version.get("minReplicas", 1))
    if version is stable:
        least -= sum(int(canary.get("minReplicas", 0)) for canary in canaries)
    return max(1, least) if canaries else least


def app_label(service: Manifest, version: Manifest) -> str:
    """The label `app` of the pods of a version's Deployment in Standard mode, since KServe 0.11."""
    middle = f"-{version['name']}" if version.get("name") else ""
    return f"isvc.{service['metadata']['name']}{middle}-predictor"


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
    share = math.ceil(stable.get("minReplicas", 1) * options.canary_percent / 100)
    if not share:
        raise InvalidInput(
            f"canary_percent = {options.canary_percent}: the stable version of {service['metadata']['name']} has "
            "minReplicas = 0, of which a canary cannot have a share; deploy it with min_replicas = 1 first"
        )
    canary = {key: value for key, value in copy.deepcopy(version).items() if key not in _AUTOSCALING_FIELDS}
    canary["name"] = f"v{revision_of(version)[:8]}"
    # Given, as KServe would count none when the canary's share becomes 0.
    canary["minReplicas"] = share
    canary["model"]["name"] = CONTAINER
    current = newest_version(service)
    if revision_of(current) == revision_of(version):
        canary.update(annotations=copy.deepcopy(current["annotations"]), labels=current["labels"])
    else:
        _note_replaced(canary, stable)
    canary["annotations"][AUTOSCALER_ANNOTATION] = NO_AUTOSCALER
    service["spec"]["canary"] = [{"trafficPercent": options.canary_percent, "predictor": canary}]
    return service


def _with_canarys_version(service: Manifest) -> Manifest:
    """The stable predictor, when the canary's version has taken its place."""
    stable, version = service["spec"]["predictor"], copy.deepcopy(service["spec"]["canary"][0]["predictor"])
    # A canary has no numbers of replicas of its own: it takes over those of the version it replaces. In the middle of a
    # promotion its own version stands there already, with the canary's replicas on top.
    replaced = (replaced_predictor(stable) if _is_placed(stable, version) else None) or stable
    for field in _AUTOSCALING_FIELDS:
        version.pop(field, None)
    version |= {name: replaced[name] for name in _AUTOSCALING_FIELDS if name in replaced}
    annotations = version.setdefault("annotations", {})
    if annotations.get(AUTOSCALER_ANNOTATION) == NO_AUTOSCALER:
        del annotations[AUTOSCALER_ANNOTATION]
    if REPLACES_ANNOTATION not in annotations:
        _note_replaced(version, replaced)
    return _in_place_of(stable, version)


def _is_placed(stable: Manifest, canary: Manifest) -> bool:
    """Whether a canary's version stands in the stable place too: its promotion is under way, or was cut short."""
    models = [version.get("model", {}).get("storageUri") for version in (stable, canary)]
    return revision_of(stable) == revision_of(canary) and models[0] == models[1]


def _in_place_of(stable: Manifest, version: Manifest) -> Manifest:
    """Another version under the stable one's name: its Deployment, its Service and their address are made of it."""
    placed = {key: value for key, value in version.items() if key not in ("name", "canaryTrafficPercent")}
    if "name" in stable:
        placed["name"] = stable["name"]
    return _admissible(placed)


def _admissible(version: Manifest) -> Manifest:
    """A predictor as KServe's webhook takes it: a service made before KServe 0.16 may name its container."""
    if "name" not in version.get("model", {}):
        return version
    return {**version, "model": {key: value for key, value in version["model"].items() if key != "name"}}


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
