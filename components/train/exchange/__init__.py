"""Sums arrays of numbers between the workers of a job, over plain TCP, by the thread that asks for the sum.

It knows nothing of models or TensorFlow. docs/exchange.md has the protocol.
"""

from kfp_image_classification.components.train.exchange.exchange import Exchange
from kfp_image_classification.components.train.exchange.failures import (
    ExchangeFailed,
    PeerLost,
    PeersMissing,
    PeerStuck,
    Refused,
    WrongMessage,
)

__all__ = ["Exchange", "ExchangeFailed", "PeerLost", "PeerStuck", "PeersMissing", "Refused", "WrongMessage"]
