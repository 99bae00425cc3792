import json

import pytest

from components.errors import InvalidInput
from components.train.cluster import Cluster, cluster_from_environment


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
