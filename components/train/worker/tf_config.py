"""The worker's place in the job: from TF_CONFIG as the Training Operator sets it, or from what JobSet tells a pod."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.exchange.addresses import split_address
from kfp_image_classification.components.train.job_files import WORKER_PORT

LAST_PORT = 65535
_JOBSET_HOST = re.compile(r"^(?P<jobset>.+)-(?P<job>[a-z0-9]+)-(?P<job_index>\d+)-(?P<index>\d+)$")


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
    def hosts(self) -> list[str]:
        return [address.rpartition(":")[0].strip("[]") for address in self.addresses]

    @property
    def exchange_addresses(self) -> list[str]:
        """Where the workers' exchange listens: at the port above TensorFlow's."""
        return [f"{host}:{int(port) + 1}" for host, _, port in (one.rpartition(":") for one in self.addresses)]

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
    for address in addresses:
        if split_address(address)[1] == LAST_PORT:
            raise InvalidInput(f"TF_CONFIG = {text!r}: {address}: the port above TensorFlow's is needed, too")
    return Cluster(addresses, position)


def tf_config_of_jobset(environment: Mapping[str, str], workers: int) -> str | None:
    """Makes TF_CONFIG in a pod of a JobSet, for which nobody sets it: Kubeflow Trainer has no TensorFlow runtime.

    An Indexed Job tells each pod its number in JOB_COMPLETION_INDEX, and names its host JOB-INDEX
    (https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode). JobSet names its jobs
    JOBSET-REPLICATEDJOB-JOBINDEX, and gives all pods a headless service of the name JOBSET
    (https://jobset.sigs.k8s.io/docs/concepts/): so a pod can be reached as JOBSET-REPLICATEDJOB-JOBINDEX-INDEX.JOBSET.

    Args:
        environment: Of this process.
        workers: Number of workers; Trainer tells no pod how many there are.

    Returns:
        TF_CONFIG; None when it is set already, or this is no pod of an Indexed Job, or one worker trains alone.

    Raises:
        InvalidInput: When the pod is one of an Indexed Job, and its names are not those of a JobSet.
    """
    given = environment.get("JOB_COMPLETION_INDEX", "")
    if environment.get("TF_CONFIG", "").strip() or not given or workers == 1:
        return None
    host = environment.get("HOSTNAME", "")
    found = _JOBSET_HOST.match(host)
    if not found or not given.isdecimal() or found["index"] != given:
        raise InvalidInput(
            f"HOSTNAME = {host!r}, JOB_COMPLETION_INDEX = {given!r}: not a pod of a JobSet, so the "
            "other workers' names cannot be told; set TF_CONFIG"
        )
    if int(given) >= workers:
        raise InvalidInput(f"JOB_COMPLETION_INDEX = {given}: the job has {workers} workers only")
    jobset, stem = found["jobset"], host.removesuffix(f"-{given}")
    addresses = [f"{stem}-{index}.{jobset}:{WORKER_PORT}" for index in range(workers)]
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": int(given)}})
