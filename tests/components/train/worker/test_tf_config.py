import json

import pytest

from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.worker.tf_config import (
    Cluster,
    cluster_from_environment,
    tf_config_of_jobset,
)


def config(cluster: dict, role: str, index: int) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": role, "index": index}})}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Cluster(("localhost:0",), 0)),
        ({"TF_CONFIG": ""}, Cluster(("localhost:0",), 0)),
        (config({"worker": ["a:1", "b:1"]}, "worker", 1), Cluster(("a:1", "b:1"), 1)),
        (config({"chief": ["c:1"], "worker": ["a:1"]}, "worker", 0), Cluster(("c:1", "a:1"), 1)),
        (config({"chief": ["c:1"], "worker": ["a:1"]}, "chief", 0), Cluster(("c:1", "a:1"), 0)),
    ],
)
def test_place_in_the_cluster(environment: dict[str, str], expected: Cluster) -> None:
    assert cluster_from_environment(environment) == expected


@pytest.mark.parametrize(
    "environment",
    [
        {"TF_CONFIG": "not json"},
        {"TF_CONFIG": "[]"},
        {"TF_CONFIG": "{}"},
        config({"worker": ["a:1"]}, "worker", 1),
        config({"worker": ["a:1"]}, "ps", 0),
        config({"worker": ["a:1"]}, "chief", 0),
    ],
)
def test_unusable_tf_config_is_quoted(environment: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="^TF_CONFIG = "):
        cluster_from_environment(environment)


def jobset(host: str, index: str, **more: str) -> dict[str, str]:
    return {"HOSTNAME": host, "JOB_COMPLETION_INDEX": index, **more}


@pytest.mark.parametrize(
    ("environment", "workers", "expected"),
    [
        (
            jobset("train-cnn-1a-node-0-1", "1"),
            2,
            Cluster(("train-cnn-1a-node-0-0.train-cnn-1a:2222", "train-cnn-1a-node-0-1.train-cnn-1a:2222"), 1),
        ),
        (
            jobset("j-node-0-0", "0"),
            3,
            Cluster(("j-node-0-0.j:2222", "j-node-0-1.j:2222", "j-node-0-2.j:2222"), 0),
        ),
        (jobset("j-node-0-0", "0"), 1, None),
        ({"HOSTNAME": "laptop"}, 2, None),
        ({}, 2, None),
        (jobset("j-node-0-0", "0", TF_CONFIG='{"cluster": {}}'), 2, None),
    ],
)
def test_tf_config_of_a_jobsets_pod(environment: dict[str, str], workers: int, expected: Cluster | None) -> None:
    made = tf_config_of_jobset(environment, workers)
    assert (made and cluster_from_environment({"TF_CONFIG": made})) == expected


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        (jobset("laptop", "0"), "not a pod of a JobSet"),
        (jobset("j-node-0-1", "0"), "not a pod of a JobSet"),
        (jobset("j-node-0-1", "x"), "not a pod of a JobSet"),
        (jobset("j-node-0-2", "2"), "JOB_COMPLETION_INDEX = 2: the job has 2 workers only"),
    ],
)
def test_pod_that_is_no_jobsets(environment: dict[str, str], problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        tf_config_of_jobset(environment, 2)


def test_hosts_are_told_without_ports_and_sums_have_the_one_above() -> None:
    cluster = Cluster(("train-node-0-0.train:2222", "10.1.2.3:2222", "[fd00::1]:2222"), 0)
    assert cluster.hosts == ["train-node-0-0.train", "10.1.2.3", "fd00::1"]
    assert cluster.exchange_addresses == ["train-node-0-0.train:2223", "10.1.2.3:2223", "[fd00::1]:2223"]


@pytest.mark.parametrize(
    ("address", "problem"),
    [("a", "expected host:port"), ("a:65535", "the port above"), ("a:x", "expected host:port"), ("", "expected host")],
)
def test_address_that_cannot_be_used(address: str, problem: str) -> None:
    config = {"cluster": {"worker": ["b:1", address]}, "task": {"type": "worker", "index": 0}}
    with pytest.raises(InvalidInput, match=problem):
        cluster_from_environment({"TF_CONFIG": json.dumps(config)})
