"""The worker's place in the job, read from TF_CONFIG as the Training Operator sets it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from components.errors import InvalidInput


@dataclass(frozen=True)
class Cluster:
    """Who trains together.

    Attributes:
        addresses: host:port of all that train, the chief first.
        index: This process's position in `addresses`.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def workers(self) -> int:
        return len(self.addresses)

    @property
    def is_chief(self) -> bool:
        return self.index == 0


def cluster_from_environment(environment: Mapping[str, str]) -> Cluster:
    """Reads TF_CONFIG; without it this process trains alone.

    See https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable.

    Raises:
        InvalidInput: When TF_CONFIG is there and cannot be used.
    """
    text = environment.get("TF_CONFIG", "").strip()
    if not text:
        return Cluster(("localhost:0",), 0)
    try:
        config = json.loads(text)
        roles = config.get("cluster", {})
        chief, workers = list(roles.get("chief", [])), list(roles.get("worker", []))
        role, index = config["task"]["type"], int(config["task"]["index"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"TF_CONFIG = {text!r}: cannot be read ({type(error).__name__}: {error}); expected "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    if role not in ("chief", "worker"):
        raise InvalidInput(f"TF_CONFIG = {text!r}: task type {role!r} does not train; expected chief or worker")
    addresses = (*chief, *workers)
    position = index + (len(chief) if role == "worker" else 0)
    if not 0 <= index < len(roles.get(role, [])):
        raise InvalidInput(f"TF_CONFIG = {text!r}: task index {index} is not one of the cluster's {role} entries")
    return Cluster(addresses, position)
