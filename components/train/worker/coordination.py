"""Joins the workers of a job, and decides how soon a lost one is noticed."""

import socket
import time
from contextlib import ExitStack

import tensorflow as tf
from tensorflow.python.eager import context

from kfp_image_classification.components.train.exchange import ExchangeFailed
from kfp_image_classification.components.train.exchange.addresses import open_door, own_door, split_address
from kfp_image_classification.components.train.options import TrainOptions
from kfp_image_classification.components.train.worker.devices import ComputeDevices
from kfp_image_classification.components.train.worker.steps import collective_sum
from kfp_image_classification.components.train.worker.stuck_watch import StuckWatch
from kfp_image_classification.components.train.worker.tf_config import Cluster

KNOCK_SECONDS = 0.1


class PeersUnreachable(Exception):
    """Not all workers came together in time."""


def connect(
    cluster: Cluster, options: TrainOptions, watch: StuckWatch, devices: ComputeDevices, with_sockets: bool
) -> tf.distribute.MultiWorkerMirroredStrategy:
    """Waits for all workers and joins them.

    Args:
        cluster: Who trains together.
        options: `peer_seconds` to wait for the others, `hang_seconds` without a sign of life and `stuck_seconds` behind
            them until one counts as lost.
        watch: Told when the joining begins.
        devices: What this worker computes on.
        with_sockets: Whether the workers will sum through an exchange, at ports of its own.

    Raises:
        PeersUnreachable: When not all are there in time; names those that are not.
    """
    if cluster.workers == 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    with ExitStack() as open_while_others_knock:
        if with_sockets:
            open_while_others_knock.enter_context(_door(cluster.exchange_addresses[cluster.index], cluster.workers))
        _meet(cluster, options.peer_seconds, with_sockets)
        watch.gets_on("connect")
        _configure_coordination(options)
        # No time-out: TensorFlow would start a thread for each sum that sleeps so long, see `stuck_watch`.
        ways = tf.distribute.experimental.CommunicationImplementation
        way = ways.NCCL if devices.joined_by_nccl else ways.RING
        strategy = tf.distribute.MultiWorkerMirroredStrategy(
            communication_options=tf.distribute.experimental.CommunicationOptions(implementation=way)
        )
        # The first message between them: only with it does TensorFlow set up what it needs, a signal handler among it.
        collective_sum(strategy, tf.zeros(1))
    return strategy


def _meet(cluster: Cluster, peer_seconds: float, with_sockets: bool) -> None:
    """Returns when every worker's ports answer.

    TensorFlow would wait for a missing worker without end, without a word, and without letting Python do anything
    meanwhile. So each worker opens the port that TensorFlow will take over, and knocks at all others' first.
    """
    lists = [cluster.addresses, cluster.exchange_addresses] if with_sockets else [cluster.addresses]
    missing = [
        (index, address) for addresses in lists for index, address in enumerate(addresses) if index != cluster.index
    ]
    deadline = time.monotonic() + peer_seconds
    with _door(cluster.addresses[cluster.index], cluster.workers):
        while missing:
            missing = [(index, address) for index, address in missing if not answers(address)]
            if missing and time.monotonic() > deadline:
                first = dict(reversed(missing))  # of the two ports of a worker that is not there, TensorFlow's
                names = ", ".join(f"worker-{index} at {address}" for index, address in sorted(first.items()))
                raise PeersUnreachable(
                    f"no answer within peer_seconds = {peer_seconds} from {names}: is it running, does its "
                    "name resolve, and may the workers reach each other at this port?"
                )
            time.sleep(KNOCK_SECONDS)


def _door(address: str, workers: int) -> socket.socket:
    try:
        return open_door(own_door(address), backlog=4 * workers)
    except ExchangeFailed as error:
        raise PeersUnreachable(str(error)) from None


def answers(address: str) -> bool:
    """Whether somebody listens at host:port."""
    try:
        with socket.create_connection(split_address(address), timeout=3):
            return True
    except OSError:
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
