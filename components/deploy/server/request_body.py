"""A request's body, read whole within limits of size and time."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from kfp_image_classification.components.deploy.server.refused import Refused, bad_request

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Headers = dict[str, str]


async def read_body(headers: Headers, receive: Receive, max_bytes: int, seconds: float) -> bytes:
    """Reads a body to its end.

    Args:
        headers: Of the request, with names in lower case.
        receive: ASGI's, of the request.
        max_bytes: Largest body that is accepted.
        seconds: How long a body that comes in parts may take.

    Raises:
        Refused: When it is compressed, too large, too slow, or breaks off.
    """
    if headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise Refused(415, f"content-encoding = {headers['content-encoding']!r}: send the body as it is")
    announced = headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    message = await receive()
    if not message.get("more_body"):
        whole: bytes = message.get("body", b"")
        return whole
    body = bytearray(message["body"])
    try:
        async with asyncio.timeout(seconds):
            while message.get("more_body"):
                message = await receive()
                body += message.get("body", b"")
                if len(body) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError:
        late = f"the body did not arrive within {seconds:g} s"
        raise Refused(408, late, {"connection": "close"}) from None
    if message["type"] == "http.disconnect":
        raise bad_request("the connection ended before the body did")  # nobody hears it, but it is counted
    return bytes(body)


def _too_large(max_bytes: int) -> Refused:
    return Refused(413, f"the body is larger than the {max_bytes:,} bytes allowed")
