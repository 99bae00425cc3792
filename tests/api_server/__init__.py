"""A real kube-apiserver with its etcd for tests, and a test's hands on the cluster behind it.

Started where KUBEBUILDER_ASSETS names a folder with both programs, the convention of controllers' tests everywhere; see
https://book.kubebuilder.io/reference/envtest.
"""

from api_server.cluster import RealKubernetesApi, running

__all__ = ["RealKubernetesApi", "running"]
