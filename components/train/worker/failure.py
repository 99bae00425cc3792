"""What an error that ends a training is: the loss of another worker, or this one's own, which would happen again."""

import re
import sysconfig
import traceback
from pathlib import Path

import tensorflow as tf

# What a worker is told that waits for one that is gone, or that does not answer.
_OF_PEERS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
)
# Under other codes: a request to another worker that failed, a peer that has started anew meanwhile, and what NCCL says
# of a connection that broke (ncclGetErrorString in its init.cc).
_SIGNS_OF_PEERS = re.compile(
    r"error information from remote target /job:|incarnation|NCCL: (remote process exited|unhandled system error)"
)
_HEADINGS = re.compile(
    r'in user code:|Graph execution error:|Detected at node|\d+ root error\(s\) found|File "|\[\[|Exception encountered'
)
_STACK = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_OPERATION = re.compile(r"Detected at node (\S+)|\{\{node ([^}]+)\}\}")
_EMPHASIS = re.compile(r"\x1b\[\d+m")
# What a call from Python is wrapped in.
_WRAPPING = re.compile(r"\{\{function_node [^}]*\}\} ?")
_LIBRARIES = ("tensorflow", "keras", "numpy")
_OWN = Path(__file__).parents[2]


def is_loss_of_peer(error: BaseException, workers: int) -> bool:
    """Whether another worker is lost, so that all have to start again; a worker that trains alone has none to lose.

    Args:
        error: What ended the training.
        workers: How many train together.
    """
    if workers == 1 or not isinstance(error, tf.errors.OpError):
        return False
    return isinstance(error, _OF_PEERS) or bool(_SIGNS_OF_PEERS.search(error.message or ""))


def in_short(error: BaseException) -> str:
    """An error in one line: its kind, the operation and the line of code where they are known, and the reason."""
    original = _original(error)
    place = ", ".join([*_operation(original), *_line(original)])
    return f"{type(original).__name__}{' in ' if place else ''}{place}: {_reason(original)}"


def in_full(error: BaseException) -> str:
    """All that is known of an error of this worker's own, and a last line that says it in short."""
    is_of_operation = isinstance(error, tf.errors.OpError)
    whole = _text(error) if is_of_operation else "".join(traceback.format_exception(error))
    needs_memory = isinstance(error, tf.errors.ResourceExhaustedError | MemoryError)
    remedy = "; lower batch_size, or give the workers more memory" if needs_memory else ""
    told = f"error: the training failed, and would fail again: {in_short(error)}{remedy}"
    return f"{_EMPHASIS.sub('', whole).rstrip()}\n{told}"


def _original(error: BaseException) -> BaseException:
    """What happened first: AutoGraph raises an error of its own in its place, with the code of the user in its text."""
    while (before := error.__context__) is not None and hasattr(before, "ag_error_metadata"):
        error = before
    return error


def _text(error: BaseException) -> str:
    if isinstance(error, tf.errors.OpError):
        return error.message or ""
    # A KeyError shows its text as if it were a key.
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in _WRAPPING.sub("", _EMPHASIS.sub("", _text(error))).splitlines()]
    return next((line for line in lines if line and not _HEADINGS.match(line)), "no reason given").rstrip(".")


def _operation(error: BaseException) -> list[str]:
    found = _OPERATION.search(_text(error)) if isinstance(error, tf.errors.OpError) else None
    operation = (found[1] or found[2]) if found else ""
    if operation.endswith("PartitionedCall"):  # all of a step, as one program of XLA
        return ["the step that XLA compiled"]
    return [f"operation {operation}"] if operation else []


def _line(error: BaseException) -> list[str]:
    """The user's innermost line, of the stack with which an operation was made, or else of Python's."""
    made = _STACK.finditer(_text(error)) if isinstance(error, tf.errors.OpError) else []
    called = traceback.extract_tb(error.__traceback__)
    stack = [(found["file"], int(found["line"])) for found in made]
    stack = stack or [(frame.filename, frame.lineno or 0) for frame in called]
    own = [f"line {line} of {file}" for file, line in stack if _is_users(Path(file))]
    return own[-1:]


def _is_users(file: Path) -> bool:
    """Whether code is the user's, or of a package of their choice: neither ours, nor TensorFlow's, nor Python's."""
    installed, standard = Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("stdlib"))
    if not file.is_absolute() or file.name.startswith("__autograph_generated") or _OWN in file.resolve().parents:
        return False
    if installed in file.parents:
        return file.relative_to(installed).parts[0] not in _LIBRARIES
    return standard not in file.parents
