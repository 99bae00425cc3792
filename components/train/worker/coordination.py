"""Joins the workers of a job, and decides how soon a lost one is noticed."""

import socket
import time

import tensorflow as tf
from tensorflow.python.eager import context

from kfp_image_classification.components.train.options import TrainOptions
from kfp_image_classification.components.train.worker.devices import ComputeDevices
from kfp_image_classification.components.train.worker.steps import sum_over_workers
from kfp_image_classification.components.train.worker.stuck_watch import StuckWatch
from kfp_image_classification.components.train.worker.tf_config import Cluster

KNOCK_SECONDS = 0.1


class PeersUnreachable(Exception):
    """Not all workers came together in time."""


def connect(
    cluster: Cluster, options: TrainOptions, watch: StuckWatch, devices: ComputeDevices
) -> tf.distribute.MultiWorkerMirroredStrategy:
    """Waits for all workers and joins them.

    Args:
        cluster: Who trains together.
        options: `peer_seconds` to wait for the others, `hang_seconds` without a sign of life and `stuck_seconds` behind
            them until one counts as lost.
        watch: Told when the joining begins.
        devices: What this worker computes on.

    Raises:
        PeersUnreachable: When not all are there in time; names those that are not.
    """
    if cluster.workers == 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    _meet(cluster, options.peer_seconds)
    watch.gets_on("connect")
    _configure_coordination(options)
    # No time-out: TensorFlow would start a thread for each sum that sleeps so long, see `stuck_watch`.
    ways = tf.distribute.experimental.CommunicationImplementation
    way = ways.NCCL if devices.joined_by_nccl else ways.RING
    strategy = tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(implementation=way)
    )
    # The first message between them: only with it does TensorFlow set up what it needs, a signal handler among it.
    sum_over_workers(strategy, tf.zeros(1))
    return strategy


def _meet(cluster: Cluster, seconds: float) -> None:
    """Returns when every worker's port answers.

    TensorFlow would wait for a missing worker without end, without a word, and without letting Python do anything
    meanwhile. So each worker opens the port that TensorFlow will take over, and knocks at all others' first.
    """
    port = int(cluster.addresses[cluster.index].rpartition(":")[2])
    missing = {index: address for index, address in enumerate(cluster.addresses) if index != cluster.index}
    deadline = time.monotonic() + seconds
    try:
        door = socket.create_server(("", port), backlog=4 * cluster.workers)
    except OSError as error:
        raise PeersUnreachable(f"the port {port} of this worker cannot be opened: {error.strerror}") from None
    with door:
        while missing:
            missing = {index: address for index, address in missing.items() if not answers(address)}
            if missing and time.monotonic() > deadline:
                names = ", ".join(f"worker-{index} at {address}" for index, address in missing.items())
                raise PeersUnreachable(
                    f"no answer within peer_seconds = {seconds} from {names}: is it running, and does its name resolve?"
                )
            time.sleep(KNOCK_SECONDS)


def answers(address: str) -> bool:
    """Whether somebody listens at host:port."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=3):
            return True
    except (OSError, ValueError):
        return False


def _configure_coordination(options: TrainOptions) -> None:
    # The strategy configures the same service with fixed times, unless somebody did before it. There is no public way.
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    roles = resolver.cluster_spec().as_dict()
    jobs = [
        context.coordination_config_pb2.CoordinatedJob(name=role, num_tasks=len(roles[role]))
        for role in ("chief", "worker")
        if role in roles
    ]
    leader = "chief" if "chief" in roles else "worker"
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{leader}/replica:0/task:0",
        # Joining holds Python's lock, so that no thread of this process could notice that it takes for ever.
        cluster_register_timeout_in_ms=options.stuck_seconds * 1000,
        heartbeat_timeout_in_ms=options.hang_seconds * 1000,
        coordinated_jobs=jobs,
    )
