"""How a worker ends. From 128 on, the Training Operator's ExitCode policy, and ours, take it for worth another try."""

import os
import sys
from typing import NoReturn

# As Python's, of an error that nobody expected.
OWN_ERROR = 1
BAD_INPUT = 2
BAD_LOSS = 3
PEER_LOST = 138
PREEMPTED = 143


def leave(code: int, message: str) -> NoReturn:
    """Ends the process at once, with no destructor run: those of the strategy and of the interpreter wait for peers
    that may be gone already, up to a minute."""
    print(message, flush=True)
    sys.stderr.flush()
    os._exit(code)
