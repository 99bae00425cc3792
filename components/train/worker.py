"""The program that each worker of a training job runs: `python -m components.train.worker --job JSON`.

Its place among the workers comes from TF_CONFIG. Exit codes follow the Training Operator's ExitCode restart policy,
where 1 to 127 are permanent failures and 128 and above are worth another try:

| code | meaning |
|---|---|
| 0 | the whole job is done |
| 2 | bad input |
| 3 | the loss is NaN or infinite |
| 138 | another worker was lost |
| 143 | terminated |
"""

import argparse
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from components.errors import InvalidInput, StageFailed
from components.process_owner import leave_with_owner
from components.train.cluster import Cluster, cluster_from_environment
from components.train.options import TrainingJob
from components.train.worker_report import WorkerReport

BAD_INPUT, BAD_LOSS, PEER_LOST = 2, 3, 138


def main() -> int:
    """Runs the worker and returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m components.train.worker", description="Trains as one worker.")
    parser.add_argument("--job", required=True, help="the training job as JSON (components.train.options.TrainingJob)")
    try:
        job = TrainingJob.model_validate_json(parser.parse_args().job)
        cluster = cluster_from_environment(os.environ)
    except (ValidationError, InvalidInput) as error:
        print(f"error: {error}", flush=True)
        return BAD_INPUT
    leave_with_owner()
    return _train(job, cluster)


def _train(job: TrainingJob, cluster: Cluster) -> int:
    Path(job.directory).mkdir(parents=True, exist_ok=True)
    report = WorkerReport(index=cluster.index)

    import tensorflow as tf

    from components.train.training import NonFiniteLoss, train_model

    report.process_started()
    try:
        train_model(job, cluster, report)
    except NonFiniteLoss as error:
        print(f"error: {error}", flush=True)
        return BAD_LOSS
    except (InvalidInput, StageFailed) as error:
        print(f"error: {error}", flush=True)
        return BAD_INPUT
    except tf.errors.OpError as error:
        print(f"another worker was lost: {type(error).__name__}: {error.message.splitlines()[0]}", flush=True)
        return PEER_LOST
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Interpreter shutdown waits for peers that may be gone already, up to a minute.
    os._exit(code)
