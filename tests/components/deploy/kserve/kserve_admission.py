"""What KServe's webhooks do to an InferenceService: its defaults, then what it refuses.

Read in kserve/kserve at aaac4e29, v0.20 and 104 commits. The file of a rule is
pkg/apis/serving/v1beta1/inference_service_validation.go where the table names none beside its function.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

MODE = "serving.kserve.io/deploymentMode"
AUTOSCALER = "serving.kserve.io/autoscalerClass"
KNATIVE_AUTOSCALER = "autoscaling.knative.dev/class"
KNATIVE_HPA = "hpa.autoscaling.knative.dev"
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
# Fields of a PredictorSpec that serve a model: component.go, PredictorSpec.GetImplementations in predictor.go.
FRAMEWORKS = (
    "sklearn",
    "xgboost",
    "tensorflow",
    "pytorch",
    "triton",
    "onnx",
    "huggingface",
    "pmml",
    "lightgbm",
    "paddle",
    "model",
)
RENAMED_MODES = {"RawDeployment": "Standard", "Serverless": "Knative"}


@dataclass(frozen=True)
class Change:
    """A write as the webhook sees it.

    Attributes:
        new: The service that is written, with its defaults.
        old: The one that is there; None for none.
    """

    new: Object
    old: Object | None = None

    @property
    def name(self) -> str:
        return str(self.new["metadata"]["name"])

    @property
    def annotations(self) -> Object:
        found: Object = self.new["metadata"].get("annotations") or {}
        return found

    @property
    def predictor(self) -> Object:
        found: Object = self.new["spec"]["predictor"]
        return found

    @property
    def components(self) -> list[Object]:
        return [
            self.new["spec"][part] for part in ("predictor", "transformer", "explainer") if self.new["spec"].get(part)
        ]

    @property
    def canaries(self) -> list[Object]:
        return self.new["spec"].get("canary") or []

    @property
    def is_standard(self) -> bool:
        return self.annotations.get(MODE) == "Standard"


def with_defaults(service: Object) -> Object:
    """What inference_service_defaults.go makes of a service: DefaultInferenceService and setPredictorModelDefaults.

    The names that modes had before 0.16 become today's; a predictor's framework becomes its model, whatever that was.
    """
    annotations = dict(service["metadata"].get("annotations") or {})
    if annotations.get(MODE) in RENAMED_MODES:
        annotations[MODE] = RENAMED_MODES[annotations[MODE]]
    predictor = dict(service["spec"]["predictor"])
    for framework in FRAMEWORKS[:-1]:
        if framework in predictor:
            predictor["model"] = {"modelFormat": {"name": framework}, **predictor.pop(framework)}
    return {
        **service,
        "metadata": {**service["metadata"], "annotations": annotations},
        "spec": {**service["spec"], "predictor": predictor},
    }


def _deployment_mode(change: Change) -> str | None:
    status = ((change.old or {}).get("status") or {}).get("deploymentMode")
    status, asked = RENAMED_MODES.get(status, status), change.annotations.get(MODE)
    if status and asked and asked != status:
        return f"update rejected: deploymentMode cannot be changed from '{status}' to '{asked}'"
    return None


def _predictor_name_change(change: Change) -> str | None:
    before = change.old["spec"]["predictor"] if change.old else change.predictor
    if before.get("name", "") != change.predictor.get("name", "") and _uri(before) == _uri(change.predictor):
        return "predictor.name change requires a model change (e.g. storageUri)"
    return None


def _service_name(change: Change) -> str | None:
    if not NAME.fullmatch(change.name):
        return (
            f'the InferenceService "{change.name}" is invalid: a InferenceService name must consist of lower case ...'
        )
    return None


def _autoscaler(change: Change) -> str | None:
    asked = change.annotations.get(AUTOSCALER, "none")
    return (
        None if asked in ("hpa", "external", "keda", "none") else f"[{asked}] is not a supported autoscaler class type"
    )


def _blocked_variables(change: Change) -> str | None:
    for component in change.components:
        containers = [
            *(component.get("containers") or []),
            *(component.get("initContainers") or []),
            *(component[framework] for framework in FRAMEWORKS if framework in component),
        ]
        if any(variable["name"] == "PYTHONPATH" for one in containers for variable in one.get("env") or []):
            return f'the InferenceService "{change.name}" is invalid: setting PYTHONPATH in container "" is not allowed'
    return None


def _predictor_container_name(change: Change) -> str | None:
    named = [framework for framework in FRAMEWORKS if (change.predictor.get(framework) or {}).get("name")]
    return "the 'name' field is not allowed in standard predictor" if named else None


def _storage_uris(change: Change) -> str | None:
    for component in change.components:
        if component.get("storageUris") is not None and _uri(component):
            return "Setting both StorageURI and StorageURIs is not supported."
    return None


def _one_implementation(change: Change) -> str | None:
    return next((words for one in change.components if (words := _not_one(one))), None)


def _numbers(change: Change) -> str | None:
    return next((words for one in change.components if (words := _wrong_numbers(one))), None)


def _scaling(change: Change) -> str | None:
    is_hpa = change.is_standard and change.annotations.get(AUTOSCALER) == "hpa"
    is_knative_hpa = not change.is_standard and change.annotations.get(KNATIVE_AUTOSCALER) == KNATIVE_HPA
    for component in change.components:
        metric, target = component.get("scaleMetric"), component.get("scaleTarget")
        if is_hpa or is_knative_hpa:
            if metric not in (None, "cpu", "memory"):
                return f"[{metric}] is not a supported metric"
            if target is not None and ((metric in (None, "cpu") and target < 1) or target > 100):
                return "the target utilization percentage should be a [1-100] integer"
        elif not change.is_standard:
            if component.get("deploymentStrategy"):
                return "customizing deploymentStrategy is only supported for raw deployment mode"
            if metric not in (None, "concurrency", "rps"):
                return f"[{metric}] is not a supported metric"
    return None


def _canaries(change: Change) -> str | None:
    names: list[str] = []
    for index, canary in enumerate(change.canaries):
        words = _wrong_canary(change, index, canary, names)
        if words:
            return words
        names.append(canary["predictor"]["name"])
    total = sum(canary["trafficPercent"] for canary in change.canaries)
    return f"sum of canary trafficPercent values ({total}) must be <= 100" if total > 100 else None


def _wrong_canary(change: Change, index: int, canary: Object, names: list[str]) -> str | None:
    predictor, percent = canary["predictor"], canary["trafficPercent"]
    name, stable = predictor.get("name", ""), change.predictor
    if not change.is_standard:
        return "canary is only supported in Standard deployment mode"
    if not _uri(stable) and "model" not in stable:
        return "canary requires a stable predictor with a model (multi-model serving is not supported with canary)"
    if not name:
        return f"canary[{index}] predictor.name is required"
    if name in names:
        return f'canary predictor.name "{name}" is duplicated'
    if name == stable.get("name", ""):
        return f'canary predictor.name "{name}" conflicts with stable predictor name'
    if not 0 <= percent <= 100:
        return f'canary "{name}" trafficPercent must be between 0 and 100, got {percent}'
    if words := _not_one(predictor) or _wrong_numbers(predictor):
        return f'canary "{name}" predictor: {words}'
    for field in ("workerSpec", "maxReplicas", "scaleTarget", "scaleMetric", "autoScaling"):
        if predictor.get(field):
            return f'canary "{name}" must not set {field} (canary uses fixed replicas)'
    least, stables = predictor.get("minReplicas"), stable.get("minReplicas", 1)
    if least is not None and least > stables:
        return f'canary "{name}" minReplicas ({least}) must not exceed stable predictor minReplicas ({stables})'
    return None


@dataclass(frozen=True)
class Rule:
    """One function of the webhook, in the order in which it calls them.

    Attributes:
        source: Its name, and its file where that is another.
        refuses: What it says of a change; None where it agrees.
    """

    source: str
    refuses: Callable[[Change], str | None]


RULES = [
    Rule("validateDeploymentMode", _deployment_mode),
    Rule("validatePredictorNameChange", _predictor_name_change),
    Rule("validateInferenceServiceName", _service_name),
    Rule("validateInferenceServiceAutoscaler", _autoscaler),
    Rule("validateBlockedEnvVars", _blocked_variables),
    Rule("validatePredictor", _predictor_container_name),
    Rule("validateMultipleStorageURIs", _storage_uris),
    Rule("validateExactlyOneImplementation, component.go", _one_implementation),
    Rule("ComponentExtensionSpec.Validate, component.go", _numbers),
    Rule("validateAutoScalingCompExtension", _scaling),
    Rule("validateCanarySpecs", _canaries),
]


def refusal(new: Object, old: Object | None = None, rules: Iterable[Rule] = RULES) -> str:
    """What the webhook says; empty when it takes the service."""
    change = Change(with_defaults(new), old)
    words = next((words for rule in rules if (words := rule.refuses(change))), None)
    webhook = '"inferenceservice.kserve-webhook-server.validator"'
    return f"{webhook} denied the request: {words}" if words else ""


def _uri(component: Object) -> str:
    served: Object = next((component[framework] for framework in FRAMEWORKS if framework in component), {})
    return str(served.get("storageUri", ""))


def _not_one(component: Object) -> str | None:
    count = sum(framework in component for framework in FRAMEWORKS) or bool(component.get("containers"))
    return None if count == 1 else "exactly one of [...] must be specified in PredictorSpec"


def _wrong_numbers(component: Object) -> str | None:
    least, most = component.get("minReplicas", 1), component.get("maxReplicas", 0)
    if component.get("containerConcurrency", 0) < 0:
        return "parallelism cannot be less than 0"
    if least < 0:
        return "'MinReplicas' cannot be less than 0"
    if most < 0:
        return "'MaxReplicas' cannot be less than 0"
    if most and least > most:
        return "'MinReplicas' cannot be greater than MaxReplicas"
    logger = component.get("logger") or {}
    if logger.get("mode", "all") not in ("all", "request", "response"):
        return "invalid logger type"
    if "storage" in logger and not {"path", "parameters", "key"} <= logger["storage"].keys():
        return "invalid logger storage configuration"
    return None
