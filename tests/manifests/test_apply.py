"""`kubectl apply -k` of each overlay on a real API server with the operators' definitions."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from repository import REPOSITORY

if TYPE_CHECKING:
    from api_server import RealKubernetesApi

OVERLAYS = sorted(path.parent for path in REPOSITORY.glob("manifests/overlays/*/kustomization.yaml"))


@pytest.fixture
def cluster(real_kubernetes_api: "RealKubernetesApi") -> "Iterator[RealKubernetesApi]":
    yield real_kubernetes_api
    real_kubernetes_api.empty()


@pytest.mark.parametrize("how", [[], ["--server-side"]], ids=["apply", "server side"])
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda overlay: overlay.name)
def test_an_overlay_is_applied_and_again_changes_nothing(
    cluster: "RealKubernetesApi", overlay: Path, how: list[str]
) -> None:
    assert warnings(cluster.kubectl("apply", *how, "-k", str(overlay))) == []
    before = stored(cluster, overlay)
    assert warnings(cluster.kubectl("apply", *how, "-k", str(overlay))) == []
    assert stored(cluster, overlay) == before


def warnings(told: str) -> list[str]:
    # The Roles are there already, by a server-side apply, which does not note what was applied last.
    return [line for line in told.splitlines() if "Warning" in line and "last-applied-configuration" not in line]


def stored(cluster: "RealKubernetesApi", overlay: Path) -> list[dict[str, Any]]:
    """The overlay's objects as the API server has them, but for its notes of who wrote what."""
    items = json.loads(cluster.kubectl("get", "-k", str(overlay), "-o", "json"))["items"]
    for item in items:
        del item["metadata"]["resourceVersion"]
    return items
