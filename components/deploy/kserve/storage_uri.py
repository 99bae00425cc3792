"""From a Model artifact's URI to one that KServe's storage initializer takes."""

import re

from kfp_image_classification.components.step.errors import InvalidInput

REMEDY = "give service.storage_uri: s3://bucket/path, gs://bucket/path or pvc://claim/path"
_BUCKET_OR_CLAIM = re.compile(r"[a-z0-9]([-a-z0-9._]*[a-z0-9])?")


def kserve_storage_uri(model_uri: str, storage_uri: str = "") -> str:
    """Says where KServe finds the model's folder, the one with the numbered versions.

    Args:
        model_uri: URI of the Model artifact; `minio://` is what Kubeflow Pipelines calls the S3 store it comes with.
        storage_uri: Where else the model lies, such as `pvc://claim/path`; empty for the artifact itself.

    Raises:
        InvalidInput: When a cluster cannot read from there.
    """
    name, uri = ("service.storage_uri", storage_uri) if storage_uri else ("the model artifact's uri", model_uri)
    scheme, separator, rest = uri.strip().partition("://")
    if not separator or scheme not in ("s3", "gs", "minio", "pvc"):
        raise InvalidInput(f"{name} = {uri!r}: a cluster cannot read the model from there; {REMEDY}")
    # Kubeflow Pipelines may hand a store's settings on as a query; KServe has them from the service account.
    store, _, path = rest.partition("?")[0].partition("/")
    path = re.sub("/+", "/", path).strip("/")
    if not _BUCKET_OR_CLAIM.fullmatch(store) or not path or ".." in path.split("/"):
        raise InvalidInput(f"{name} = {uri!r}: expected {scheme}://{_store_name(scheme)}/path")
    return f"{'s3' if scheme == 'minio' else scheme}://{store}/{path}"


def _store_name(scheme: str) -> str:
    return "claim" if scheme == "pvc" else "bucket"
