"""The program that each worker of a training job runs:

    python -m kfp_image_classification.components.train.worker --job JSON

Its place among the workers comes from TF_CONFIG, or from what JobSet tells a pod. Exit codes follow the Training
Operator's ExitCode restart policy, where 1 to 127 are permanent failures and 128 and above are worth another try:

| code | meaning |
|---|---|
| 0 | the whole job is done |
| 1 | an error of this worker's own: its model, its memory, or a bug |
| 2 | bad input |
| 3 | the loss is NaN or infinite |
| 138 | another worker was lost or did not come, or this one is stuck |
| 143 | told to go (SIGTERM, to any worker): the state is saved |
"""

import argparse
import contextlib
import os
from pathlib import Path
from typing import NoReturn

import psutil
from pydantic import ValidationError

from kfp_image_classification.components.step.direct_network import exempt_from_proxies
from kfp_image_classification.components.step.environment import settle_environment
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed
from kfp_image_classification.components.step.lean_import import import_without
from kfp_image_classification.components.step.output import steady_streams
from kfp_image_classification.components.step.process_owner import leave_with_owner
from kfp_image_classification.components.train.attempts import OwnAttempt, Superseded, note_end
from kfp_image_classification.components.train.exchange import ExchangeFailed, PeerLost, Refused
from kfp_image_classification.components.train.options import TrainingJob
from kfp_image_classification.components.train.weight_source import IMAGENET
from kfp_image_classification.components.train.worker.exit_codes import (
    BAD_INPUT,
    BAD_LOSS,
    OWN_ERROR,
    PEER_LOST,
    PREEMPTED,
    leave,
)
from kfp_image_classification.components.train.worker.keras_home import keep_downloads
from kfp_image_classification.components.train.worker.phase_times import PhaseTimes
from kfp_image_classification.components.train.worker.preemption import Preempted, PreemptionNotice
from kfp_image_classification.components.train.worker.tf_config import (
    Cluster,
    cluster_from_environment,
    tf_config_of_jobset,
)
from kfp_image_classification.components.train.worker.worker_report import WorkerReport


def main() -> NoReturn:
    """Runs the worker and ends the process."""
    parser = argparse.ArgumentParser(
        prog="python -m kfp_image_classification.components.train.worker", description="Trains as one worker."
    )
    parser.add_argument(
        "--job",
        required=True,
        help="the training job as JSON (kfp_image_classification.components.train.options.TrainingJob)",
    )
    steady_streams()
    settle_environment()
    try:
        job = TrainingJob.model_validate_json(parser.parse_args().job)
        if tf_config := tf_config_of_jobset(os.environ, job.options.workers):
            os.environ["TF_CONFIG"] = tf_config  # TensorFlow reads it, too
        cluster = cluster_from_environment(os.environ)
        exempt_from_proxies(os.environ, cluster.hosts)
    except (ValidationError, InvalidInput) as error:
        leave(BAD_INPUT, f"error: {error}")
    notice = PreemptionNotice()
    leave_with_owner()
    _train(job, cluster, notice)


def _train(job: TrainingJob, cluster: Cluster, notice: PreemptionNotice) -> NoReturn:
    times = PhaseTimes(psutil.Process().create_time())
    try:
        Path(job.directory).mkdir(parents=True, exist_ok=True)
        # Of an attempt before: its peers would take this worker for done.
        WorkerReport.path(job.directory, cluster.index).unlink(missing_ok=True)
        attempt = OwnAttempt(Path(job.directory), times.started) if cluster.is_chief else None
    except OSError as error:
        leave(BAD_INPUT, f"error: the job's folder cannot be used: {error}")

    if cluster.is_chief and job.start and job.start.source == IMAGENET:
        keep_downloads(Path(job.directory))
    # For what no worker does: 60 MB, and a quarter of the time that a start takes.
    with import_without("sklearn", "pandas", "matplotlib", "scipy", "IPython"):
        import keras  # noqa: F401
        import tensorflow  # noqa: F401

    from kfp_image_classification.components.train.worker.checkpoints import CheckpointUnreadable
    from kfp_image_classification.components.train.worker.coordination import PeersUnreachable
    from kfp_image_classification.components.train.worker.failure import in_full, in_short, is_loss_of_peer
    from kfp_image_classification.components.train.worker.training import NonFiniteLoss, train_model

    try:
        held = train_model(job, cluster, times, notice, attempt)
    except NonFiniteLoss as error:
        leave(BAD_LOSS, f"error: {error}")
    except (InvalidInput, StageFailed, OSError) as error:
        leave(BAD_INPUT, f"error: {error}")
    except Superseded as error:
        leave(PEER_LOST, f"error: {error}")
    except Refused as error:
        if error.is_permanent:
            leave(BAD_INPUT, f"error: {error}")
        _leave_to_return(PEER_LOST, f"error: {error}", job, cluster)
    except PeerLost as error:
        _leave_to_return(PEER_LOST, f"another worker was lost: {error}", job, cluster)
    except (PeersUnreachable, CheckpointUnreadable, ExchangeFailed) as error:
        _leave_to_return(PEER_LOST, f"error: {error}", job, cluster)
    except Preempted as error:
        _leave_to_return(PREEMPTED, str(error), job, cluster)
    except Exception as error:  # whatever a user's model, TensorFlow or a driver raises
        if is_loss_of_peer(error, cluster.workers):
            _leave_to_return(PEER_LOST, f"another worker was lost: {in_short(error)}", job, cluster)
        leave(OWN_ERROR, in_full(error))
    leave(0, f"trained under {type(held[0]).__name__}")


def _leave_to_return(code: int, message: str, job: TrainingJob, cluster: Cluster) -> NoReturn:
    """Leaves, and writes down why, where the launcher does not know better."""
    with contextlib.suppress(OSError):
        note_end(job.directory, f"worker-{cluster.index}: {message.removeprefix('error: ')}", overrides=False)
    leave(code, message)
