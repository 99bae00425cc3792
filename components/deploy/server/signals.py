"""The end of a server, as a terminal or a cluster tells it."""

import asyncio
import signal


async def told_to_stop() -> None:
    """Waits for SIGTERM or SIGINT."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await told.wait()
