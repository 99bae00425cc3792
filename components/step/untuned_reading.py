"""Reading with tf.data, by as many threads as its reader says."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf


def untuned() -> "tf.data.Options":
    """Options of a data set whose reader has decided all numbers itself.

    A thread of TensorFlow's would tune them otherwise. It sleeps for as long as it has been there already, up to a
    minute, and whoever is done with an iterator waits for it to wake up.
    """
    import tensorflow as tf  # takes seconds to load, and is there where anything is read

    options = tf.data.Options()
    options.autotune.enabled = False
    return options
