"""Reading with tf.data, by as many threads as its reader says."""

import tensorflow as tf


def untuned() -> tf.data.Options:
    """Options of a data set whose reader has decided all numbers itself.

    A thread of TensorFlow's would tune them otherwise. It sleeps for as long as it has been there already, up to a
    minute, and whoever is done with an iterator waits for it to wake up.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options
