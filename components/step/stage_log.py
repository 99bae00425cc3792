"""One line format for what a stage tells a person: `[stage] message`."""

import logging
import sys


def stage_log(stage: str) -> logging.Logger:
    """A logger that prints to standard output at once, apart from the root logger that KFP's executor sets up."""
    log = logging.getLogger(f"stage.{stage}")
    if not log.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter(f"[{stage}] %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    return log
