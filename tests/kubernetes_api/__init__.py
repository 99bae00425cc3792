"""A Kubernetes API server for tests: real HTTP on loopback, real state, no cluster behind it."""

from kubernetes_api.server import KubernetesApi
from kubernetes_api.store import ApiError, Change, Resource

__all__ = ["ApiError", "Change", "KubernetesApi", "Resource"]
