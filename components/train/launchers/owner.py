"""Who a job belongs to: the pod that launched it, so that Kubernetes removes the job when the pod, or its run, goes."""

import json
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from kubernetes.client import ApiClient, ApiException, CoreV1Api

from kfp_image_classification.components.cluster.kubernetes_client import (
    REQUEST_TIMEOUT,
    explained,
    in_cluster,
    own_namespace,
    patiently,
)

# Set by KFP in the pods of its steps.
POD_NAME_VARIABLE, POD_UID_VARIABLE = "KFP_POD_NAME", "KFP_POD_UID"


def owner_reference(client: ApiClient, namespace: str, tell: Callable[[str], None]) -> dict[str, Any] | None:
    """A reference to this process' pod.

    Args:
        client: Of the API.
        namespace: The job's; an owner must be in the same.
        tell: Told when there is a pod and it cannot be referred to.

    Returns:
        An entry for `metadata.ownerReferences`; None when this is not a pod of that namespace.
    """
    name, uid = os.environ.get(POD_NAME_VARIABLE, ""), os.environ.get(POD_UID_VARIABLE, "")
    if not name and not in_cluster():
        return None
    if own_namespace() != namespace:
        tell(f"the job is in another namespace, {namespace}: deleting the run will not remove it")
        return None
    if not uid:
        name = name or socket.gethostname()
        read = partial(CoreV1Api(client).read_namespaced_pod, name, namespace, _request_timeout=REQUEST_TIMEOUT)
        try:
            pod = json.loads(patiently(client, partial(read, _preload_content=False), tell).data)
        except ApiException as error:
            tell(f"deleting the run will not remove the job: this pod cannot be looked up: {explained(error)}")
            return None
        uid = pod["metadata"]["uid"]
    return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
