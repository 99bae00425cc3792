"""How an exchange ends before its time."""

from collections.abc import Iterable


class ExchangeFailed(Exception):
    """An exchange cannot begin or go on; it is closed, and its message says why."""


class PeerLost(ExchangeFailed):
    """A worker is gone.

    Attributes:
        peer: Its index.
        closed: False where it is not known to be gone, but hangs or talks nonsense.
    """

    closed = True

    def __init__(self, peer: int, what: str) -> None:
        self.peer = peer
        super().__init__(f"worker {peer} {what}")


class PeerStuck(PeerLost):
    """A worker's connection stands, but nothing has come, or nothing was taken, for too long."""

    closed = False


class WrongMessage(PeerLost):
    """A worker sent something other than its part of this sum: of another job, attempt, step or size, or garbled."""

    closed = False


class PeersMissing(ExchangeFailed):
    """Not all workers came together in time.

    Attributes:
        peers: The indexes of those that this worker missed.
    """

    def __init__(self, peers: Iterable[int], why: str) -> None:
        self.peers = tuple(peers)
        super().__init__(why)


class Refused(ExchangeFailed):
    """This worker and another cannot sum together, and waiting does not mend it: another attempt, other settings.

    Attributes:
        peer: The other's index.
        is_permanent: Whether both would meet as they are again: with other settings, or another version.
    """

    def __init__(self, peer: int, why: str, is_permanent: bool) -> None:
        self.peer = peer
        self.is_permanent = is_permanent
        super().__init__(why)
