"""What a worker does at its peers' ports, and its own, before TensorFlow joins them."""

import math
import socket
from contextlib import ExitStack

import pytest

from kfp_image_classification.components.train.launchers.machine import worker_ports
from kfp_image_classification.components.train.options import TrainOptions
from kfp_image_classification.components.train.worker.coordination import PeersUnreachable, connect
from kfp_image_classification.components.train.worker.devices import ComputeDevices
from kfp_image_classification.components.train.worker.stuck_watch import StuckWatch
from kfp_image_classification.components.train.worker.tensor_exchange import uses_sockets
from kfp_image_classification.components.train.worker.tf_config import Cluster

CPU = ComputeDevices(gpus=0, shared=False, words="the CPU")
OWN_GPU = ComputeDevices(gpus=1, shared=False, words="1 GPU")


def knocked(at: socket.socket) -> bool:
    at.settimeout(0)
    try:
        at.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize(("devices", "uses_ports"), [(CPU, True), (OWN_GPU, False)], ids=["sockets", "NCCL"])
def test_ports_of_the_exchange_are_left_alone_where_nccl_sums(
    devices: ComputeDevices, uses_ports: bool, train_options: TrainOptions
) -> None:
    options = train_options.model_copy(update={"peer_seconds": 1})
    own, peer = worker_ports(2)
    cluster = Cluster((f"127.0.0.1:{own}", f"127.0.0.1:{peer}"), 0)
    with_sockets = uses_sockets(options.exchange, cluster.workers, devices)
    with ExitStack() as others, socket.create_server(("127.0.0.1", peer + 1)) as exchange_of_peer:
        if not uses_ports:
            others.enter_context(socket.create_server(("127.0.0.1", own + 1)))
        with pytest.raises(PeersUnreachable, match=f"= 1 from worker-1 at 127.0.0.1:{peer}: is it running"):
            connect(cluster, options, StuckWatch(math.inf), devices, with_sockets)
        assert knocked(exchange_of_peer) is uses_ports
