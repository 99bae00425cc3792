"""Between the supervisor and a worker: short messages, and connections that the one accepts and the other answers."""

import asyncio
import socket
from enum import StrEnum
from typing import NamedTuple


class Word(StrEnum):
    """What a supervisor tells a worker, and, from `READY` on, a worker its supervisor."""

    CONNECTION = "connection"
    LOOK = "look"
    TAKE_OVER = "take over"
    LEAVE = "leave"
    STOP = "stop"
    READY = "ready"
    FAILED = "failed"
    LOOKED = "looked"
    OPEN = "open"


_LONGEST = 1 << 16
_PAUSE_SECONDS = 0.01


class Message(NamedTuple):
    """What came; without text when the other process has ended."""

    text: str
    connection: socket.socket | None = None


class Channel:
    """One end of a pair of Unix sockets that keep messages apart.

    Args:
        end: The socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._received: asyncio.Queue[Message] = asyncio.Queue()
        end.setblocking(False)
        asyncio.get_running_loop().add_reader(end, self._read)

    async def send(self, text: str, connection: socket.socket | None = None) -> None:
        """Sends a message, once there is room for it; does nothing when the other process has ended."""
        files = [connection.fileno()] if connection else []
        while True:
            try:
                socket.send_fds(self._end, [text.encode()[:_LONGEST]], files)
            except BlockingIOError:
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            except OSError:
                pass
            return

    async def receive(self) -> Message:
        """Waits for the next message."""
        return await self._received.get()

    def close(self) -> None:
        """Closes this end."""
        asyncio.get_running_loop().remove_reader(self._end)
        self._end.close()

    def _read(self) -> None:
        text, files = b"", list[int]()
        try:
            text, files, _, _ = socket.recv_fds(self._end, _LONGEST, 1)
        except BlockingIOError:
            return
        except OSError:  # the other process has ended
            pass
        if not text:
            asyncio.get_running_loop().remove_reader(self._end)
        connection = socket.socket(fileno=files[0]) if files else None
        self._received.put_nowait(Message(text.decode(errors="replace"), connection))


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
