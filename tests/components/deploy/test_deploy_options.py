import socket
from typing import Any

import pytest

from kfp_image_classification.components.deploy.options import DeployOptions
from kfp_image_classification.components.step.errors import InvalidInput, checked


@pytest.mark.parametrize("name", ["", "Digits", "a_b", "-a", "a-", "1a", "a" * 64, "a.b", "a/b"])
def test_service_names_that_are_no_dns_label(name: str) -> None:
    with pytest.raises(InvalidInput, match="^service_name = "):
        checked(DeployOptions, service_name=name)


def test_taken_port() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InvalidInput, match=rf"^service_port = {port}: the port is taken by another process"):
            checked(DeployOptions, service_name="digits", service_port=port)
    assert checked(DeployOptions, service_name="digits", service_port=port).service_port == port


@pytest.mark.parametrize("port", [-1, 65536])
def test_no_such_port(port: int) -> None:
    with pytest.raises(InvalidInput, match="^service_port = "):
        checked(DeployOptions, service_name="digits", service_port=port)


@pytest.mark.parametrize(
    ("backend", "in_pod", "to_cluster"),
    [
        ("auto", False, False),
        ("auto", True, True),
        ("local", True, False),
        ("kserve", False, True),
    ],
)
def test_backend(monkeypatch: pytest.MonkeyPatch, backend: str, in_pod: bool, to_cluster: bool) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1" if in_pod else "")
    assert checked(DeployOptions, service_name="digits", backend=backend).to_cluster is to_cluster


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"backend": "seldon"}, "backend = 'seldon': Input should be 'auto', 'local' or 'kserve'"),
        ({"runtime": "My Server"}, "runtime = 'My Server'"),
        ({"namespace": "a_b"}, "namespace = 'a_b'"),
        ({"canary_percent": 100}, "canary_percent = 100: Input should be less than or equal to 99"),
        ({"min_replicas": 5, "max_replicas": 2}, "min_replicas = 5: more than max_replicas = 2"),
        ({"min_replicas": 0}, "min_replicas = 0: in deployment mode Standard a service cannot be scaled to zero"),
        ({"canary_percent": 10}, "canary_percent = 10: in deployment mode Standard requests are split at the ingress"),
        ({"service": {"scale_metrics": "cpu"}}, "service.scale_metrics = 'cpu': Extra inputs are not permitted"),
        (
            {"service": {"scale_metric": "rps"}},
            "service.scale_metric = 'rps': in deployment mode Standard it is cpu or",
        ),
        (
            {"service": {"scale_metric": "cpu", "deployment_mode": "Serverless"}},
            "service.scale_metric = 'cpu': in deployment mode Serverless it is concurrency or rps",
        ),
        ({"service": {"scale_target": 50}}, "service.scale_target = 50: of what? Give service.scale_metric"),
        ({"service": {"container_concurrency": 2}}, "service.container_concurrency = 2: has no effect"),
        ({"service": {"autoscaling_target": 2}}, "service.autoscaling_target = 2: has no effect"),
        ({"service": {"logger": {"mode": "some", "url": "http://x"}}}, "service.logger.mode = 'some'"),
        ({"service": {"logger": {"url": "message-dumper"}}}, "service.logger.url = 'message-dumper'"),
        ({"service": {"logger": {"url": "abfs://log/digits"}}}, "service.logger.url = 'abfs://log/digits'"),
        (
            {"service": {"logger": {"url": "s3://x", "storage": {"format": "csv"}}}},
            "service.logger.storage.format = 'csv'",
        ),
        ({"service": {"logger": {"url": "http://x", "storage": {}}}}, "storage is for a bucket"),
        ({"service": {"batcher": {"max_batch_size": 0}}}, "service.batcher.max_batch_size = 0"),
        (
            {"service": {"resources": {"limits": {"memory": "2 GB"}}}},
            "service.resources.limits.memory = '2 GB': expected",
        ),
        ({"service": {"resources": {"limit": {}}}}, "service.resources.limit"),
        ({"service": {"labels": {"a b": "c"}}}, "expected a name as Kubernetes allows"),
        ({"service": {"labels": {"a": "b c"}}}, "service.labels.a = 'b c': expected a label's value"),
        ({"service": {"ingress_url": "10.0.0.1"}}, "service.ingress_url = '10.0.0.1'"),
        ({"service": {"deployment_mode": "ModelMesh"}}, "service.deployment_mode = 'ModelMesh'"),
        ({"service": {"wait_seconds": 0}}, "service.wait_seconds = 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_of_the_service_that_are_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked(DeployOptions, service_name="digits", **values)
    assert problem in str(refused.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as refused:
        checked(DeployOptions, service_name="A", backend="x", service={"a": 1, "logger": {}})
    assert len(refused.value.problems) == 4


def test_numbers_arrive_from_kfp_as_floats() -> None:
    service = {"scale_metric": "cpu", "scale_target": 50.0, "resources": {"limits": {"cpu": 2.0}}}
    options = checked(DeployOptions, service_name="digits", service=service, min_replicas=2.0)
    assert (options.service.scale_target, options.service.resources) == (50, {"limits": {"cpu": "2"}})
    assert options.min_replicas == 2


@pytest.mark.parametrize(
    ("mode", "canary_percent", "longest"),
    [("Standard", 0, 48), ("Standard", 10, 38), ("Knative", 0, 47), ("Knative", 10, 47)],
)
def test_longest_name(mode: str, canary_percent: int, longest: int) -> None:
    """By what KServe and Knative make of it and put into a label: isvc.NAME-predictor and NAME-predictor-00001."""
    service = {"deployment_mode": mode, "ingress_url": "http://10.0.0.1"}
    values = {"backend": "kserve", "canary_percent": canary_percent, "service": service}
    checked(DeployOptions, service_name="a" * longest, **values)
    with pytest.raises(InvalidInput, match=f"has {longest + 1} characters; .* it has {longest} at most"):
        checked(DeployOptions, service_name="a" * (longest + 1), **values)
    checked(DeployOptions, service_name="a" * 63, **{**values, "backend": "local"})
