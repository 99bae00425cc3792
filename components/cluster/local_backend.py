"""Why a step in a pod refuses the backend `local`: what that starts needs a machine that stays, and more packages."""

import os

from kfp_image_classification.components.cluster.kubernetes_client import in_cluster
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.step.process_owner import OWNER_VARIABLE

# What each backend would start, and what does it on a cluster.
_TRAINS = ("the workers would be processes of this pod, whose image has no TensorFlow", "auto, tfjob or trainjob")
_SERVES = ("the model server would end with this pod, whose image lacks its packages", "auto or kserve")


def in_step_pod() -> bool:
    """Whether this process is a step in a pod of its own; a local run that somebody started in a pod is none."""
    return in_cluster() and OWNER_VARIABLE not in os.environ


def train_backend_problem(name: str, backend: str) -> str:
    """What is wrong with a train backend in a step's pod; empty for nothing.

    Args:
        name: Of the parameter.
        backend: Its value.
    """
    return _problem(name, backend, *_TRAINS)


def deploy_backend_problem(name: str, backend: str) -> str:
    """As `train_backend_problem`, of a deploy backend."""
    return _problem(name, backend, *_SERVES)


def refuse_in_pod(problem: str) -> None:
    """Ends a step in a pod that has a problem there.

    Raises:
        InvalidInput: With the problem.
    """
    if problem and in_step_pod():
        raise InvalidInput(problem)


def _problem(name: str, backend: str, why: str, instead: str) -> str:
    return f"{name} = 'local': on a cluster {why}; give {instead}" if backend == "local" else ""
