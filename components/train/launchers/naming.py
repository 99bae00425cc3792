"""The name of a job on the cluster: the same for the same job of the same run, so that it is found again."""

import hashlib
import itertools
import re
from collections.abc import Iterator

# JobSet makes NAME-node-0-INDEX-xxxxx of it, and the Training Operator NAME-worker-INDEX; both must fit in the 63
# characters of a DNS label, also where a number was added to the name.
LONGEST_NAME = 40
DIGEST_CHARACTERS = 10
# On every job that was made for one training: its name, without a number.
TRAINING_LABEL = "kfp-image-classification/training"


def job_name(run: str, model_type: str, identity: str) -> str:
    """Derives a job's name.

    Args:
        run: What keeps two runs apart: the run's id, or its folder.
        model_type: The model variant; what of it fits in a name is shown in it.
        identity: Everything that decides the job's result, as text.

    Returns:
        A DNS label (RFC 1035) that starts with `train-`.
    """
    digest = hashlib.sha256(f"{run}\n{model_type}\n{identity}".encode()).hexdigest()[:DIGEST_CHARACTERS]
    shown = re.sub(r"[^a-z0-9]+", "-", model_type.lower()).strip("-")
    space = LONGEST_NAME - len("train--") - DIGEST_CHARACTERS
    return "-".join(filter(None, ["train", shown[:space].strip("-"), digest]))


def names_in_turn(name: str) -> Iterator[str]:
    """The names that the jobs of one training may have: its own first.

    Another one is needed where the first one's pods do not go: a node that is lost keeps them, and their names.
    """
    yield name
    yield from (f"{name}-{number}" for number in itertools.count(2))
