"""The table of KServe's admission rules, case by case. The real webhooks of v0.20.0 said the same, in these words."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from kserve_admission import AUTOSCALER, MODE, RULES, refusal

Object = dict[str, Any]

SERVICE: Object = {
    "metadata": {"name": "digits", "annotations": {MODE: "Standard"}},
    "spec": {
        "predictor": {"minReplicas": 1, "model": {"modelFormat": {"name": "tensorflow"}, "storageUri": "s3://a/1"}}
    },
}
CANARY: Object = {
    "trafficPercent": 60,
    "predictor": {
        "name": "v1",
        "model": {"name": "kserve-container", "modelFormat": {"name": "tensorflow"}, "storageUri": "s3://a/2"},
    },
}


def annotated(**annotations: str) -> Callable[[Object], None]:
    names = {"mode": MODE, "autoscaler": AUTOSCALER}
    values = {names[name]: value for name, value in annotations.items()}
    return lambda service: service["metadata"]["annotations"].update(values)


def predictor(**fields: Any) -> Callable[[Object], None]:
    return lambda service: service["spec"]["predictor"].update(fields)


def canaries(*changes: Object) -> Callable[[Object], None]:
    made = [{**CANARY, "predictor": {**CANARY["predictor"], **change}} for change in changes]
    return lambda service: service["spec"].update(canary=copy.deepcopy(made))


def named(service: Object) -> None:
    service["spec"]["predictor"]["model"]["name"] = "kserve-container"


def called(service: Object) -> None:
    service["metadata"]["name"] = "1digits"


def with_variable(service: Object) -> None:
    service["spec"]["predictor"]["model"]["env"] = [{"name": "PYTHONPATH", "value": "/x"}]


REFUSED: list[tuple[str, list[Callable[[Object], None]]]] = [
    ("the 'name' field is not allowed in standard predictor", [named]),
    ('the InferenceService "1digits" is invalid: a InferenceService name must consist of lower case', [called]),
    ("[foo] is not a supported autoscaler class type", [annotated(autoscaler="foo")]),
    ('the InferenceService "digits" is invalid: setting PYTHONPATH in container "" is not allowed', [with_variable]),
    (
        "Setting both StorageURI and StorageURIs is not supported.",
        [predictor(storageUris=[{"uri": "s3://a/b", "mountPath": "/mnt/a"}])],
    ),
    ("parallelism cannot be less than 0", [predictor(containerConcurrency=-1)]),
    ("'MinReplicas' cannot be less than 0", [predictor(minReplicas=-1)]),
    ("'MinReplicas' cannot be greater than MaxReplicas", [predictor(minReplicas=3, maxReplicas=2)]),
    (
        "invalid logger storage configuration",
        [predictor(logger={"url": "s3://a/b", "storage": {"path": "log", "parameters": {}}})],
    ),
    ("[rps] is not a supported metric", [annotated(autoscaler="hpa"), predictor(scaleMetric="rps")]),
    (
        "the target utilization percentage should be a [1-100] integer",
        [annotated(autoscaler="hpa"), predictor(scaleMetric="cpu", scaleTarget=101)],
    ),
    ("[cpu] is not a supported metric", [annotated(mode="Knative"), predictor(scaleMetric="cpu")]),
    ("[cpu] is not a supported metric", [annotated(mode="Serverless"), predictor(scaleMetric="cpu")]),
    (
        "customizing deploymentStrategy is only supported for raw deployment mode",
        [annotated(mode="Knative"), predictor(deploymentStrategy={"type": "Recreate"})],
    ),
    ("canary is only supported in Standard deployment mode", [canaries({}), annotated(mode="Knative")]),
    ('canary "v1" must not set maxReplicas (canary uses fixed replicas)', [canaries({"maxReplicas": 2})]),
    ('canary "v1" must not set scaleTarget (canary uses fixed replicas)', [canaries({"scaleTarget": 2})]),
    (
        'canary "v1" minReplicas (2) must not exceed stable predictor minReplicas (1)',
        [canaries({"minReplicas": 2})],
    ),
    ('canary predictor.name "v1" is duplicated', [canaries({}, {})]),
    ("sum of canary trafficPercent values (120) must be <= 100", [canaries({}, {"name": "v2"})]),
    ('canary predictor.name "v1" conflicts with stable predictor name', [canaries({}), predictor(name="v1")]),
]


def changed(*changes: Callable[[Object], None]) -> Object:
    service = copy.deepcopy(SERVICE)
    for change in changes:
        change(service)
    return service


@pytest.mark.parametrize(("words", "changes"), REFUSED, ids=[words for words, _ in REFUSED])
def test_refused(words: str, changes: list[Callable[[Object], None]]) -> None:
    assert f"denied the request: {words}" in refusal(changed(*changes))


@pytest.mark.parametrize(
    "changes",
    [
        [],
        [annotated(mode="RawDeployment"), canaries({})],
        [predictor(scaleTarget=500)],
        [predictor(sklearn={"storageUri": "s3://a/b"})],
        [canaries({"minReplicas": 1})],
    ],
    ids=["as it is", "name of before 0.16", "no autoscaler named", "a framework takes the model's place", "canary"],
)
def test_taken(changes: list[Callable[[Object], None]]) -> None:
    assert refusal(changed(*changes)) == ""


def test_of_updates() -> None:
    live = {**changed(), "status": {"deploymentMode": "Standard"}}
    assert refusal(changed(), live) == ""
    assert "deploymentMode cannot be changed from 'Standard' to 'Knative'" in refusal(
        changed(annotated(mode="Knative")), live
    )
    assert "predictor.name change requires a model change" in refusal(changed(predictor(name="v1")), live)
    elsewhere = {"storageUri": "s3://a/2", "modelFormat": {"name": "tensorflow"}}
    assert refusal(changed(predictor(name="v1", model=elsewhere)), live) == ""


def test_each_rule_has_a_case() -> None:
    refused = {words for words, _ in REFUSED}
    silent = {
        rule.source for rule in RULES if not any(refusal(changed(*changes), rules=[rule]) for _, changes in REFUSED)
    }
    # Of updates; and what the schema or the defaults refuse before it comes to this.
    assert silent == {
        "validateDeploymentMode",
        "validatePredictorNameChange",
        "validateExactlyOneImplementation, component.go",
    }
    assert len(refused) == len(REFUSED) - 1
