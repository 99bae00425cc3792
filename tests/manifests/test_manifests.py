"""What `manifests/` brings to a cluster: it builds, fits the definitions, and allows what the code does, no more."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_api.crds import REAL_CRDS, needs_definitions, schema_errors, unknown_fields
from kustomize import kustomized
from repository import REPOSITORY

from kfp_image_classification.components.cluster import images
from kfp_image_classification.components.cluster.permissions import BY_BACKEND, TRAINING_RUNTIME, Permission, needed
from kfp_image_classification.components.preflight.checks import apply_manifests
from kfp_image_classification.components.train.launchers.trainjob import CONTAINER, REPLICATED_JOB
from kfp_image_classification.components.train.worker.exit_codes import BAD_INPUT, BAD_LOSS

MANIFESTS = REPOSITORY / "manifests"
OWN = ("base", "kserve", "trainer", "overlays")
FILES = sorted(path for part in OWN for path in (MANIFESTS / part).rglob("*.yaml"))
EXAMPLES = sorted((MANIFESTS / "examples").glob("*.yaml"))
OVERLAYS = sorted(path.parent.name for path in MANIFESTS.glob("overlays/*/kustomization.yaml"))
Object = dict[str, Any]


def objects(*kinds: str) -> list[Object]:
    """All objects of some kinds, as they are written."""
    found = [item for path in FILES for item in yaml.safe_load_all(path.read_text())]
    return [item for item in found if item["kind"] in kinds]


@pytest.fixture(scope="module", params=OVERLAYS)
def built(request: pytest.FixtureRequest) -> tuple[str, list[Object]]:
    """An overlay's name, and its objects as `kubectl apply -k` sends them."""
    return request.param, kustomized(MANIFESTS / "overlays" / request.param)


@pytest.mark.parametrize("path", [*FILES, *EXAMPLES], ids=lambda path: str(path.relative_to(MANIFESTS)))
def test_every_file_is_yaml_with_a_kind(path: Path) -> None:
    assert all(item["apiVersion"] and item["kind"] for item in yaml.safe_load_all(path.read_text()))


def test_an_overlay_is_complete(built: tuple[str, list[Object]]) -> None:
    name, items = built
    kinds = {item["kind"] for item in items}
    assert kinds >= {"Role", "RoleBinding", "PersistentVolumeClaim", "ServiceAccount", "Secret", "ServingRuntime"}
    assert ("ClusterTrainingRuntime" in kinds) == (name != "local")
    (claim,) = [item for item in items if item["kind"] == "PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany" if name == "shared-volume" else "ReadWriteOnce"]


def test_an_overlay_names_its_namespace_everywhere(built: tuple[str, list[Object]]) -> None:
    _, items = built
    for item in items:
        if item["kind"] not in ("ClusterRole", "ClusterRoleBinding", "ClusterTrainingRuntime"):
            assert item["metadata"]["namespace"] == "kubeflow", item["metadata"]
        for subject in item.get("subjects", []):
            assert subject == {"kind": "ServiceAccount", "name": "pipeline-runner", "namespace": "kubeflow"}


def test_an_overlays_bindings_bind_roles_that_are_there(built: tuple[str, list[Object]]) -> None:
    _, items = built
    roles = {(item["kind"], item["metadata"]["name"]) for item in items if item["kind"] in ("Role", "ClusterRole")}
    bound = {(item["roleRef"]["kind"], item["roleRef"]["name"]) for item in items if "roleRef" in item}
    assert roles == bound


def test_the_overlays_that_a_remedy_names_are_there() -> None:
    for overlay in ("local", "local-trainer"):
        assert (REPOSITORY / apply_manifests("kubeflow", overlay).split()[-1] / "kustomization.yaml").is_file()


def test_the_roles_allow_what_the_code_does_and_no_more() -> None:
    def rights(permissions: list[Permission]) -> set[tuple[str, str, str, str]]:
        return {(one.group, one.resource, one.name, verb) for one in permissions for verb in one.verbs}

    def granted(kind: str) -> set[tuple[str, str, str, str]]:
        return {
            (group, resource, name, verb)
            for role in objects(kind)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for name in rule.get("resourceNames", [""])
            for verb in rule["verbs"]
        }

    all_needed = needed(BY_BACKEND)
    assert granted("Role") == rights([one for one in all_needed if not one.cluster_wide])
    assert granted("ClusterRole") == rights([one for one in all_needed if one.cluster_wide])
    assert "*" not in {part for kind in ("Role", "ClusterRole") for right in granted(kind) for part in right}


@needs_definitions
def test_the_training_runtime_fits_its_definition() -> None:
    crd = yaml.safe_load((REAL_CRDS / "clustertrainingruntimes.trainer.kubeflow.org.yaml").read_text())
    (version,) = [version for version in crd["spec"]["versions"] if version["served"]]
    schema = version["schema"]["openAPIV3Schema"]
    (runtime,) = objects("ClusterTrainingRuntime")
    assert runtime["apiVersion"] == f"{crd['spec']['group']}/{version['name']}"
    assert schema_errors(schema, runtime) == []
    assert unknown_fields(schema, runtime) == []


def test_the_training_runtime_is_the_one_that_jobs_ask_for() -> None:
    (runtime,) = objects("ClusterTrainingRuntime")
    assert runtime["metadata"]["name"] == TRAINING_RUNTIME
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert job["name"] == REPLICATED_JOB
    assert [one["name"] for one in job["template"]["spec"]["template"]["spec"]["containers"]] == [CONTAINER]
    policy = job["template"]["spec"]["podFailurePolicy"]["rules"]
    (permanent,) = [rule["onExitCodes"]["values"] for rule in policy if rule["action"] == "FailJob"]
    assert set(permanent) >= {BAD_INPUT, BAD_LOSS}
    assert max(permanent) < 128, "from 128 on, another try is worth it"


def test_images_are_those_of_the_components() -> None:
    text = "".join(path.read_text() for path in FILES if path.parent.name != "examples")
    named = set(re.findall(r"image: (\S+)", text))
    assert named == {images.SERVER_IMAGE, images.TENSORFLOW_IMAGE}


def test_every_container_runs_without_privileges() -> None:
    containers = [container for runtime in objects("ServingRuntime") for container in runtime["spec"]["containers"]]
    for runtime in objects("ClusterTrainingRuntime"):
        for job in runtime["spec"]["template"]["spec"]["replicatedJobs"]:
            containers += job["template"]["spec"]["template"]["spec"]["containers"]
    assert len(containers) == 2
    for container in containers:
        assert container["securityContext"] == {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
