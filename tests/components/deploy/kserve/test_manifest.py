"""The manifest, whole, and against KServe's own definition where that lies beside the repository."""

import copy
from typing import Any

import kserve_admission
import pytest
from kubernetes_api.crds import definitions, needs_definitions, schema_errors, unknown_fields

from kfp_image_classification.components.contracts.deployed_model import DeployedModel, champion
from kfp_image_classification.components.deploy.kserve import manifest
from kfp_image_classification.components.deploy.kserve.options import Logger
from kfp_image_classification.components.deploy.options import DeployOptions
from kfp_image_classification.components.step.errors import InvalidInput

MODEL = DeployedModel(
    run="run-1",
    model_uri="minio://mlpipeline/model",
    model_type="cnn",
    dataset="mnist_5k",
    dataset_fingerprint="f1",
    git_revision="abc",
    val_accuracy=0.975,
)
INGRESS = {"ingress_url": "http://10.0.0.1"}
FULL = {
    "runtime_version": "2.19.1",
    "resources": {"requests": {"cpu": 0.5, "memory": "1Gi"}, "limits": {"nvidia.com/gpu": 1.0}},
    "scale_metric": "cpu",
    "scale_target": 70.0,
    "logger": {"mode": "all", "url": "http://message-dumper.kubeflow.svc.cluster.local"},
    "batcher": {"max_batch_size": 16.0},
    "service_account": "reader",
    "node_selector": {"pool": "serving"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "image_pull_secrets": ["registry"],
    "labels": {"team": "vision"},
    "annotations": {"owner": "vision"},
}


def options(
    canary_percent: int = 0, runtime: str = "tensorflow", replicas: tuple[int, int] = (1, 4), **service: Any
) -> DeployOptions:
    return DeployOptions(
        service_name="digits",
        runtime=runtime,
        canary_percent=canary_percent,
        min_replicas=replicas[0],
        max_replicas=replicas[1],
        service={**INGRESS, **service},
    )


def version(uri: str = "s3://mlpipeline/model", digest: str = "d", **service: Any) -> dict[str, Any]:
    return manifest.predictor(options(**service), uri, MODEL, digest)


def new(**service: Any) -> dict[str, Any]:
    return manifest.new_service("digits", "kubeflow", options(**service), version(**service))


def without_revision(service: dict[str, Any]) -> dict[str, Any]:
    service = copy.deepcopy(service)
    assert len(service["spec"]["predictor"]["annotations"].pop("kfp-image-classification/revision")) == 16
    return service


PROVENANCE = {
    "kfp-image-classification/run": "run-1",
    "kfp-image-classification/model-uri": "minio://mlpipeline/model",
    "kfp-image-classification/model-type": "cnn",
    "kfp-image-classification/dataset": "mnist_5k",
    "kfp-image-classification/dataset-fingerprint": "f1",
    "kfp-image-classification/git-revision": "abc",
    "kfp-image-classification/val-accuracy": "0.975",
}
LABELS = {"app.kubernetes.io/managed-by": "kfp-image-classification", "pipeline/runid": "run-1"}


def test_defaults() -> None:
    assert without_revision(new()) == {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "digits",
            "namespace": "kubeflow",
            "labels": LABELS,
            "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
        },
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "maxReplicas": 4,
                "serviceAccountName": "model-reader",
                "model": {
                    "modelFormat": {"name": "tensorflow"},
                    "runtime": "kserve-tensorflow-serving",
                    "storageUri": "s3://mlpipeline/model",
                },
                "annotations": PROVENANCE,
                "labels": LABELS,
            }
        },
    }


def test_everything() -> None:
    service = without_revision(new(**FULL))
    assert service["metadata"] == {
        "name": "digits",
        "namespace": "kubeflow",
        "labels": {**LABELS, "team": "vision"},
        "annotations": {
            "serving.kserve.io/deploymentMode": "Standard",
            "owner": "vision",
            "kfp-image-classification/set-keys": "owner team",
        },
    }
    assert service["spec"]["predictor"] == {
        "minReplicas": 1,
        "maxReplicas": 4,
        "scaleMetric": "cpu",
        "scaleTarget": 70,
        "serviceAccountName": "reader",
        "nodeSelector": {"pool": "serving"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "registry"}],
        "logger": {"mode": "all", "url": "http://message-dumper.kubeflow.svc.cluster.local"},
        "batcher": {"maxBatchSize": 16, "maxLatency": 50, "timeout": 60},
        "model": {
            "modelFormat": {"name": "tensorflow"},
            "runtime": "kserve-tensorflow-serving",
            "runtimeVersion": "2.19.1",
            "storageUri": "s3://mlpipeline/model",
            "resources": {"requests": {"cpu": "0.5", "memory": "1Gi"}, "limits": {"nvidia.com/gpu": "1"}},
        },
        "annotations": {**PROVENANCE, "owner": "vision"},
        "labels": {**LABELS, "team": "vision"},
    }


def test_knative_settings() -> None:
    knative = {"scale_metric": "rps", "scale_target": 5, "container_concurrency": 2, "autoscaling_target": 10}
    service = new(deployment_mode="Knative", **knative)
    predictor = service["spec"]["predictor"]
    assert (predictor["scaleMetric"], predictor["containerConcurrency"]) == ("rps", 2)
    assert predictor["annotations"]["autoscaling.knative.dev/target"] == "10"
    assert service["metadata"]["annotations"]["autoscaling.knative.dev/target"] == "10"


@pytest.mark.parametrize(
    ("uri", "expected"), [("s3://a/b", "model-reader"), ("gs://a/b", None), ("pvc://claim/path", None)]
)
def test_service_account_goes_with_the_store(uri: str, expected: str | None) -> None:
    assert version(uri).get("serviceAccountName") == expected
    assert "serviceAccountName" not in version(uri, service_account="")


def test_another_runtime() -> None:
    model = manifest.predictor(options(runtime="my-server"), "s3://a/b", MODEL, "d")["model"]
    assert model["runtime"] == "my-server"


def canary() -> dict[str, Any]:
    return manifest.with_version(new(), options(canary_percent=10), version("s3://other/model"))


MANIFESTS = {
    "defaults": new(),
    "everything": new(**FULL),
    "names of before 0.16": new(deployment_mode="RawDeployment"),
    "memory": new(scale_metric="memory", scale_target=100),
    "knative": new(deployment_mode="Knative", scale_metric="concurrency", container_concurrency=1),
    "knative rps": new(deployment_mode="Serverless", scale_metric="rps", scale_target=1, autoscaling_target=5),
    "log in a bucket": new(logger={"url": "gs://payloads/digits", "storage": {"path": "digits"}}),
    "canary": canary(),
    "taken over": manifest.taken_over(canary()),
    "promoted": manifest.promoted(manifest.taken_over(canary())),
    "canary rolled back": manifest.rolled_back(canary()),
    "rolled back": manifest.rolled_back(manifest.promoted(manifest.taken_over(canary()))),
    "knative canary": manifest.with_version(
        new(deployment_mode="Knative"),
        options(canary_percent=10, deployment_mode="Knative"),
        version("s3://other/model"),
    ),
}


@pytest.mark.parametrize("service", MANIFESTS.values(), ids=MANIFESTS)
def test_kserves_webhook_takes_it(service: dict[str, Any]) -> None:
    assert kserve_admission.refusal(service) == ""


@needs_definitions
@pytest.mark.parametrize("service", MANIFESTS.values(), ids=MANIFESTS)
def test_against_kserves_own_definition(service: dict[str, Any]) -> None:
    crd = next(one for one in definitions() if one["metadata"]["name"] == "inferenceservices.serving.kserve.io")
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert schema_errors(schema, service) == []
    assert unknown_fields(schema, service) == []


def test_revision_is_that_of_content_and_settings_not_of_the_run() -> None:
    revision = manifest.revision_of(version())
    other_run = manifest.predictor(options(), "s3://mlpipeline/model", DeployedModel(run="run-2"), "d")
    assert manifest.revision_of(other_run) == revision
    others = [version("s3://other/model"), version(digest="e"), version(**FULL), version(labels={"a": "b"})]
    assert len({revision, *map(manifest.revision_of, others)}) == 5


def test_update_keeps_what_others_wrote_and_notes_what_it_replaces() -> None:
    live = new(labels={"team": "vision"})
    live["metadata"].update(resourceVersion="7", finalizers=["theirs"], managedFields=[{}])
    live["metadata"]["annotations"]["theirs"] = "kept"
    live["status"] = {"url": "http://x"}
    updated = manifest.with_version(live, options(), version("s3://other/model"))
    assert updated["metadata"] == {
        "name": "digits",
        "namespace": "kubeflow",
        "resourceVersion": "7",
        "finalizers": ["theirs"],
        "labels": LABELS,
        "annotations": {"serving.kserve.io/deploymentMode": "Standard", "theirs": "kept"},
    }
    assert "status" not in updated
    assert live["spec"] == new(labels={"team": "vision"})["spec"], "what was given is not changed"
    assert manifest.rolled_back(updated)["spec"] == live["spec"]
    third = manifest.with_version(updated, options(), version("s3://third/model"))
    noted = third["spec"]["predictor"]["annotations"]["kfp-image-classification/replaces"]
    assert "s3://other/model" in noted
    assert "kfp-image-classification/replaces" not in noted, "one step back, not a chain"


def test_canary_in_standard_mode_leaves_the_stable_version_alone() -> None:
    live = new()
    updated = manifest.with_version(live, options(canary_percent=10), version("s3://other/model"))
    assert updated["metadata"] == live["metadata"]
    assert updated["spec"]["predictor"] == live["spec"]["predictor"]
    (canary,) = updated["spec"]["canary"]
    assert canary["trafficPercent"] == 10
    assert canary["predictor"]["name"].startswith("v")
    assert not {"maxReplicas", "scaleMetric", "scaleTarget"} & canary["predictor"].keys()
    assert canary["predictor"]["minReplicas"] == 1
    assert canary["predictor"]["annotations"]["serving.kserve.io/autoscalerClass"] == "none"
    more = manifest.with_version(updated, options(canary_percent=50), version("s3://other/model"))
    assert more["spec"]["canary"] == [{**canary, "trafficPercent": 50}], "more requests, the same pods"


def canary_of(live: dict[str, Any], percent: int = 10) -> dict[str, Any]:
    return manifest.with_version(live, options(canary_percent=percent), version("s3://other/model"))


@pytest.mark.parametrize("name", ["", "v0"], ids=["as deployed", "promoted by name before"])
def test_promotion_leaves_the_name_and_with_it_the_address(name: str) -> None:
    """KServe calls Deployment, Service and address by the stable predictor's name."""
    live = new()
    if name:
        live["spec"]["predictor"]["name"] = name
    taken_over = manifest.taken_over(canary_of(live))
    promoted = manifest.promoted(taken_over)
    updated = manifest.with_version(promoted, options(), version("s3://third/model"))
    for step in (taken_over, promoted, updated, manifest.rolled_back(updated), manifest.rolled_back(promoted)):
        assert step["spec"]["predictor"].get("name", "") == name
        assert "name" not in step["spec"]["predictor"]["model"]
    assert promoted["spec"].keys() == {"predictor"}
    assert manifest.rolled_back(promoted)["spec"] == live["spec"]


def test_promotion_in_steps_never_has_fewer_replicas_than_the_stable_version_asks_for() -> None:
    live = new(replicas=(3, 3))
    canary = canary_of(live, 50)
    taken_over = manifest.taken_over(canary)
    assert taken_over["spec"]["canary"] == canary["spec"]["canary"], "its requests go on being answered"
    stable = taken_over["spec"]["predictor"]
    assert (stable["minReplicas"], stable["maxReplicas"]) == (5, 5), "KServe takes the canary's 2 off"
    assert manifest.replicas(taken_over, stable) == 3
    again = manifest.taken_over(taken_over)
    assert again["spec"] == taken_over["spec"], "a promotion that was cut short goes on"
    promoted = manifest.promoted(taken_over)["spec"]["predictor"]
    assert (promoted["minReplicas"], promoted["maxReplicas"]) == (3, 3)
    assert manifest.rolled_back(taken_over)["spec"] == live["spec"]


def test_canary_that_somebody_else_made() -> None:
    """Without annotations, that is without a revision, as the version beside it may be."""
    live = new(replicas=(2, 2))
    theirs = {"name": "v1", "minReplicas": 1, "model": {"name": "kserve-container", "storageUri": "s3://theirs"}}
    del live["spec"]["predictor"]["annotations"]
    before = copy.deepcopy(live["spec"])
    live["spec"]["canary"] = [{"trafficPercent": 50, "predictor": theirs}]
    assert manifest.rolled_back(live)["spec"] == before
    taken_over = manifest.taken_over(live)
    assert taken_over["spec"]["predictor"]["minReplicas"] == 3
    promoted = manifest.promoted(taken_over)
    assert promoted["spec"]["predictor"]["model"] == {"storageUri": "s3://theirs"}
    assert promoted["spec"]["predictor"]["minReplicas"] == 2
    assert manifest.rolled_back(promoted)["spec"] == before


def test_service_made_before_kserve_0_16_can_be_put_back() -> None:
    live = new()
    live["spec"]["predictor"]["model"]["name"] = "kserve-container"
    updated = manifest.with_version(live, options(), version("s3://other/model"))
    for step in (updated, manifest.rolled_back(updated), manifest.restored(updated, live)):
        assert kserve_admission.refusal(step, live) == ""


def test_share_of_no_replicas() -> None:
    live = new()
    live["spec"]["predictor"]["minReplicas"] = 0
    with pytest.raises(InvalidInput, match="^canary_percent = 10: .* has minReplicas = 0, .*; deploy it with min_rep"):
        canary_of(live)


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_canary_of_what_is_stable_already(mode: str) -> None:
    with pytest.raises(InvalidInput, match="^canary_percent = 10: the stable version of digits is this very model"):
        manifest.with_version(
            new(deployment_mode=mode),
            options(canary_percent=10, deployment_mode=mode),
            version(deployment_mode=mode),
        )


def test_first_version_cannot_be_a_canary() -> None:
    with pytest.raises(InvalidInput, match="^canary_percent = 10: there is no service 'digits' to get the other"):
        manifest.new_service("digits", "kubeflow", options(canary_percent=10), version())


@pytest.mark.parametrize("annotation", ["not JSON", "[]"])
def test_note_that_cannot_be_read(annotation: str) -> None:
    live = new()
    live["spec"]["predictor"]["annotations"]["kfp-image-classification/replaces"] = annotation
    with pytest.raises(InvalidInput, match="nothing to go back to"):
        manifest.rolled_back(live)


def test_champion() -> None:
    assert champion(new()) == MODEL
    live = new()
    live["spec"]["predictor"]["annotations"]["kfp-image-classification/val-accuracy"] = "high"
    assert champion(live) == MODEL.model_copy(update={"val_accuracy": None})
    del live["spec"]["predictor"]["annotations"]
    assert champion(live) == DeployedModel()


BUCKET_LOGGER = {
    "mode": "all",
    "url": "s3://payloads/digits",
    "storage": {"path": "log", "parameters": {"format": "json"}, "key": "credentials"},
    "batchSize": 20,
    "batchInterval": "10s",
}
WRITER = {"path": "digits", "service_account": "writer", "format": "parquet", "batch_size": 5.0, "batch_seconds": 60.0}


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        (None, BUCKET_LOGGER),
        (
            WRITER,
            {
                **BUCKET_LOGGER,
                "storage": {
                    "path": "digits",
                    "parameters": {"format": "parquet"},
                    "key": "credentials",
                    "serviceAccountName": "writer",
                },
                "batchSize": 5,
                "batchInterval": "60s",
            },
        ),
    ],
)
def test_logger_of_a_bucket(storage: dict[str, object] | None, expected: dict[str, object]) -> None:
    logger = Logger.model_validate({"url": "s3://payloads/digits", "storage": storage})
    assert logger.manifest() == expected
