"""Hears of a worker that gives no sign of life, for those that wait for it elsewhere than in TensorFlow.

A peer that is killed closes its connections, which the exchange notices at once. One that is stopped, or whose node is
gone, does not. TensorFlow's heartbeats miss it, and then end all collectives that wait: so a thread waits in one.
"""

import threading

import tensorflow as tf

from kfp_image_classification.components.train.worker.exit_codes import PEER_LOST, leave
from kfp_image_classification.components.train.worker.stuck_watch import StuckWatch

# Apart from the strategy's own, which count up from 1.
GROUP_KEY = 2**20


def leave_when_a_peer_is_lost(workers: int, hang_seconds: float, watch: StuckWatch) -> None:
    """Ends this process when another worker has given no sign of life for hang_seconds, as long as there is work.

    Args:
        workers: How many there are.
        hang_seconds: For the message.
        watch: Knows whether there is still work.
    """

    def wait() -> None:
        try:
            # One more member than there will ever be.
            tf.raw_ops.CollectiveReduceV2(
                input=tf.zeros(1),
                group_size=workers + 1,
                group_key=GROUP_KEY,
                instance_key=GROUP_KEY,
                ordering_token=[],
                merge_op="Add",
                final_op="Id",
                communication_hint="ring",
            )
        except tf.errors.OpError as error:
            if watch.is_on:
                why = " ".join(error.message.split("}} ")[-1].split("\n")[:2])
                leave(PEER_LOST, f"another worker was lost: no sign of life for hang_seconds = {hang_seconds:g}: {why}")

    threading.Thread(target=wait, name="lost-peers", daemon=True).start()
