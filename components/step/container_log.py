"""What a step says when it is told to go must not be lost with the process that passes its words on."""

import os

# The first process of the container: Argo's. What it prints is the container's log.
FIRST_PROCESS_OUTPUT = "/proc/1/fd/1"


def write_to_container_log(line: str) -> bool:
    """Writes a line into the log of this process' container, not by way of its own standard output.

    In a step of Kubeflow Pipelines that may go through a pipe to KFP's launcher. A SIGTERM reaches all processes of the
    step at once and ends the launcher, which handles no signals, and with it the pipe.

    Returns:
        Whether it could: not where the first process is another user's.
    """
    try:
        log = os.open(FIRST_PROCESS_OUTPUT, os.O_WRONLY | os.O_APPEND)
    except OSError:
        return False
    try:
        os.write(log, f"{line}\n".encode())
    except OSError:
        return False
    finally:
        os.close(log)
    return True
