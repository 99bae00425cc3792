"""The head of a request, within limits of size and time; uvicorn and its parser have neither.

And a head is not understood otherwise than others understand it: a client may offer another protocol with every request
(Java's does, HTTP/2), and a server that stays with HTTP/1.1 answers as if it had not (RFC 9110, 7.8). The parser takes
the offer for accepted, and the body for no part of the request.
"""

import asyncio
import re

from kfp_image_classification.components.deploy.server.one_write import OneWriteProtocol

MOST_BYTES = 64 << 10

_END = b"\r\n\r\n"
_OFFER = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)


class RequestHeadProtocol(OneWriteProtocol):
    """uvicorn's, given heads that are whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins a connection, and waits for its first request; uvicorn waits for others, and no longer."""
        super().connection_made(transport)
        self._awaits_head = True
        self._head = b""
        self._late = asyncio.get_running_loop().call_later(self.timeout_keep_alive, self._is_late)

    def data_received(self, data: bytes) -> None:
        """Hands on what came, once a head is whole; what does not begin as a request at once, to be refused."""
        if self._awaits_head:
            head = self._head + data
            end = head.find(_END)
            if end > MOST_BYTES or (end < 0 and len(head) > MOST_BYTES):
                self._refuse(b"431 Request Header Fields Too Large", b"the head is larger than %d bytes" % MOST_BYTES)
                return
            if end < 0 and head[:1].isalpha():
                self._head = head
                return
            self._late.cancel()
            data, self._head = head, b""
            if offer := _OFFER.search(head, 0, max(end, 0)):
                data = head[: offer.start()] + b"\r\nx-upgrade:" + head[offer.end() :]
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """What follows is the body."""
        self._awaits_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """What follows is the next request."""
        super().on_message_complete()
        self._awaits_head = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends a connection."""
        self._late.cancel()
        super().connection_lost(exc)

    def _is_late(self) -> None:
        if self._head:
            self._refuse(b"408 Request Timeout", b"the head did not arrive within %d s" % self.timeout_keep_alive)
        else:
            self.transport.close()

    def _refuse(self, status: bytes, reason: bytes) -> None:
        body = b'{"error":"%s"}' % reason
        lines = [
            b"HTTP/1.1 " + status,
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join(lines) + _END + body)
        self.transport.close()
