import pytest

from kfp_image_classification.components.deploy.kserve.address import Address, service_address
from kfp_image_classification.components.step.errors import StageFailed

PUBLIC, INTERNAL = "http://digits-kubeflow.example.com", "http://digits-predictor.kubeflow.svc.cluster.local"
BOTH = {"url": PUBLIC, "address": {"url": INTERNAL}}


@pytest.mark.parametrize(
    ("status", "in_cluster", "ingress_url", "expected"),
    [
        (BOTH, True, "", Address(INTERNAL)),
        (BOTH, False, "", Address(PUBLIC)),
        ({"url": PUBLIC}, True, "", Address(PUBLIC)),
        (BOTH, True, "http://10.0.0.1/", Address("http://10.0.0.1", {"Host": "digits-kubeflow.example.com"})),
        (
            {"url": "https://example.com/serving/kubeflow/digits"},
            False,
            "http://localhost:8080",
            Address("http://localhost:8080/serving/kubeflow/digits", {"Host": "example.com"}),
        ),
    ],
)
def test_address(status: dict, in_cluster: bool, ingress_url: str, expected: Address) -> None:
    assert service_address({"status": status}, in_cluster, ingress_url) == expected


@pytest.mark.parametrize(("status", "ingress_url"), [({}, ""), ({"address": {"url": INTERNAL}}, "http://10.0.0.1")])
def test_no_address(status: dict, ingress_url: str) -> None:
    with pytest.raises(StageFailed, match="digits"):
        service_address({"metadata": {"name": "digits"}, "status": status}, True, ingress_url)


def test_model_url() -> None:
    assert Address(PUBLIC).model_url("digits") == f"{PUBLIC}/v1/models/digits"
