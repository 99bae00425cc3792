import pytest

from kfp_image_classification.components.deploy.kserve.storage_uri import kserve_storage_uri
from kfp_image_classification.components.step.errors import InvalidInput


@pytest.mark.parametrize(
    ("model_uri", "storage_uri", "expected"),
    [
        ("minio://mlpipeline/v2/artifacts/x/model", "", "s3://mlpipeline/v2/artifacts/x/model"),
        ("s3://bucket/a/b/", "", "s3://bucket/a/b"),
        ("s3://bucket/a/b?region=eu-west-1&endpoint=store:9000", "", "s3://bucket/a/b"),
        ("gs://my-bucket.name/a//b", "", "gs://my-bucket.name/a/b"),
        ("/local/model", "pvc://image-classification/runs/1/model", "pvc://image-classification/runs/1/model"),
        ("minio://a/b", "gs://c/d", "gs://c/d"),
    ],
)
def test_translation(model_uri: str, storage_uri: str, expected: str) -> None:
    assert kserve_storage_uri(model_uri, storage_uri) == expected


@pytest.mark.parametrize(
    ("model_uri", "storage_uri", "message"),
    [
        ("/runs/1/model", "", "the model artifact's uri = '/runs/1/model': a cluster cannot read"),
        ("", "", "the model artifact's uri = ''"),
        ("oci://registry/model", "", "give service.storage_uri: s3://bucket/path"),
        ("s3://a/b", "http://example.com/m", "service.storage_uri = 'http://example.com/m': a cluster cannot read"),
        ("s3://a/b", "pvc://claim", "service.storage_uri = 'pvc://claim': expected pvc://claim/path"),
        ("s3://a/b", "pvc://claim/../other", "expected pvc://claim/path"),
        ("s3:///path", "", "expected s3://bucket/path"),
        ("s3://bucket/ ", "", "expected s3://bucket/path"),
    ],
)
def test_places_that_a_cluster_cannot_read(model_uri: str, storage_uri: str, message: str) -> None:
    with pytest.raises(InvalidInput) as problem:
        kserve_storage_uri(model_uri, storage_uri)
    assert message in str(problem.value)
