"""What TensorFlow says on every start, whatever its log level."""

import re

_CHATTER = re.compile(
    r"[IW]\d{4} \d\d:|WARNING: All log messages before absl|.*failed call to cuInit|To enable the following instr"
)


def is_chatter(line: str) -> bool:
    """Whether a line of a worker's output is of no use to anybody."""
    return bool(_CHATTER.match(line))
