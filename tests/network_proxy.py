"""A TCP proxy between two workers that does to their bytes what a network does, at a chosen byte."""

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Literal

# What is done to the bytes that go UP, from the worker that calls, or DOWN.
Direction = Literal["up", "down"]
Change = Callable[[int, bytes], bytes]


class Cut(Exception):
    """Raised by a change: the connection ends here."""

    def __init__(self, how: Literal["close", "reset", "half", "silence"]) -> None:
        self.how = how


def at(offset: int, do: Callable[[], None]) -> Change:
    """Does something once exactly so many bytes have passed; those after it never do."""

    def change(start: int, piece: bytes) -> bytes:
        if start + len(piece) >= offset:
            do()
        return piece

    change.stop_at = offset  # type: ignore[attr-defined]
    return change


def garbled(offset: int, flip: int = 0x10) -> Change:
    """Flips bits of one byte."""

    def change(start: int, piece: bytes) -> bytes:
        if start <= offset < start + len(piece):
            piece = bytearray(piece)  # type: ignore[assignment]
            piece[offset - start] ^= flip  # type: ignore[index]
        return bytes(piece)

    return change


class Proxy:
    """Listens at a port and passes each connection on to another one.

    Args:
        target: The port that it stands for.
        up: Change of the bytes from the caller; down: of those to it.
        piece: Bytes that are passed on at once, at most.
        delay: Seconds before each piece.
        port: Where it listens; 0 for any.
    """

    def __init__(
        self,
        target: int,
        up: Change | None = None,
        down: Change | None = None,
        piece: int = 65536,
        delay: float = 0,
        port: int = 0,
    ) -> None:
        self._target = target
        self._changes: dict[Direction, Change | None] = {"up": up, "down": down}
        self._piece = piece
        self._delay = delay
        self._door = socket.create_server(("127.0.0.1", port))
        self.port = self._door.getsockname()[1]
        self.accepted = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._door.accept()
            except OSError:
                return
            self.accepted += 1
            try:  # accepted first, as a service mesh's sidecar does
                called = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                caller.close()
                continue
            self._open += [caller, called]
            for direction, source, target in (("up", caller, called), ("down", called, caller)):
                threading.Thread(target=self._pump, args=(direction, source, target), daemon=True).start()

    def _pump(self, direction: Direction, source: socket.socket, target: socket.socket) -> None:
        change, passed = self._changes[direction], 0
        with contextlib.suppress(OSError, ValueError):  # closed, in a call or before it
            while True:
                # Not in recv itself: a socket that is closed meanwhile is reset only once nobody waits for it.
                while not select.select([source], [], [], 0.02)[0]:
                    pass
                stop_at = getattr(change, "stop_at", None)
                piece = source.recv(min(self._piece, stop_at - passed) if stop_at else self._piece)
                time.sleep(self._delay)
                if not piece:
                    target.shutdown(socket.SHUT_WR)
                    return
                try:
                    changed = change(passed, piece) if change and not stop_at else piece
                    passed += len(piece)
                    target.sendall(changed)
                    if change and stop_at and passed == stop_at:
                        change(passed - len(piece), piece)
                except Cut as cut:
                    self._cut(cut, source, target)
                    return
            return
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _cut(cut: Cut, source: socket.socket, target: socket.socket) -> None:
        if cut.how == "silence":
            time.sleep(600)
        if cut.how == "reset":
            for one in (source, target):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.close()
        elif cut.how == "half":
            target.shutdown(socket.SHUT_WR)
        else:
            for one in (source, target):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for one in (self._door, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
