"""An answer's head and body leave in one write. uvicorn makes two, and the second costs a tenth of a small request."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class OneWriteProtocol(HttpToolsProtocol):
    """uvicorn's, at a transport that writes answers whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins a connection."""
        super().connection_made(_OneWrite(transport))


class _OneWrite(asyncio.Transport):
    """Keeps what is written until more is, or until the event loop's next turn."""

    def __init__(self, transport: Any) -> None:
        super().__init__()
        self._transport = transport
        self._kept = b""
        self._call_soon = asyncio.get_running_loop().call_soon

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._kept:
            self._kept += data
            self._flush()
        else:
            self._kept = bytes(data)
            self._call_soon(self._flush)

    def _flush(self) -> None:
        kept, self._kept = self._kept, b""
        if kept:
            self._transport.write(kept)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return bool(self._transport.is_closing())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)
