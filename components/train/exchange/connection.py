"""Moves the bytes of one message to, or from, one worker, as far as goes without waiting."""

import socket
from collections.abc import Callable

from kfp_image_classification.components.train.exchange.failures import PeerLost
from kfp_image_classification.components.train.exchange.messages import HEADER_BYTES

Pieces = list[memoryview]


class Outgoing:
    """A message that is being sent; straight from the memory of the numbers."""

    def __init__(self, peer: int, connection: socket.socket, pieces: Pieces) -> None:
        self.peer = peer
        self.connection = connection
        self.has_begun = False
        self._left = pieces

    @property
    def is_done(self) -> bool:
        return not self._left

    def go_on(self) -> bool:
        """Sends what the kernel takes; False when it takes nothing now.

        Raises:
            PeerLost: When the connection is closed.
        """
        try:
            sent = self.connection.sendmsg(self._left)
        except BlockingIOError:
            return False
        except OSError as error:
            raise PeerLost(self.peer, f"is gone: {error.strerror}") from None
        self.has_begun = True
        _drop(self._left, sent)
        return True


class Incoming:
    """A message that is being received; straight into the memory where the numbers belong.

    Its first piece is the header: `judge` is called as soon as that is there, before it is waited for any longer.
    """

    def __init__(self, peer: int, connection: socket.socket, pieces: Pieces, judge: Callable[[int], None]) -> None:
        self.peer = peer
        self.connection = connection
        self._left = pieces
        self._header_left = HEADER_BYTES
        self._judge = judge

    @property
    def is_done(self) -> bool:
        return not self._left

    @property
    def has_begun(self) -> bool:
        return self._header_left < HEADER_BYTES

    def go_on(self) -> bool:
        """Takes what has arrived; False when nothing has.

        Raises:
            PeerLost: When the connection is closed, or the header is not the one that is due.
        """
        try:
            count = self.connection.recvmsg_into(self._left)[0]
        except BlockingIOError:
            return False
        except OSError as error:
            raise PeerLost(self.peer, f"is gone: {error.strerror}") from None
        if not count:
            raise PeerLost(self.peer, "has closed its connection")
        _drop(self._left, count)
        if self._header_left:
            self._header_left = max(0, self._header_left - count)
            if not self._header_left:
                self._judge(self.peer)
        return True


def _drop(pieces: Pieces, count: int) -> None:
    """Takes so many bytes away from the front."""
    gone = 0
    for piece in pieces:
        if count < len(piece):
            break
        count -= len(piece)
        gone += 1
    del pieces[:gone]
    if count:
        pieces[0] = pieces[0][count:]
