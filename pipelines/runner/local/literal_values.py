"""Keeps what a user names as it is on its way through kfp.local 2.17 into a step.

kfp.local hands a step its inputs as text in a command. In that text it puts the interpreter's path in place of each
`python3`, without quotes, and resolves each `{{$...}}` and `/kfp-workspace`, whether it wrote them itself or they are
part of a folder's or a class's name.
"""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kfp.local import placeholder_utils, subprocess_task_handler

PLACEHOLDER, EXECUTOR_INPUT = "{{$", "{{$}}"
# In the script that starts a step, and nowhere else.
_SCRIPT_PARTS = ('"$program_path/ephemeral_component.py"', '"$@"')


@contextmanager
def literal_values() -> Iterator[None]:
    """Replaces the two functions of kfp.local that take values for text of its own."""
    resolve, replace = (
        placeholder_utils.resolve_individual_placeholder,
        subprocess_task_handler.replace_python_executable,
    )

    def resolve_placeholder(element: str, executor_input_dict: dict[str, Any], **names: str) -> str:
        if element == EXECUTOR_INPUT:
            return json.dumps(executor_input_dict)
        if PLACEHOLDER not in element:  # `/kfp-workspace` alone is a folder
            return element
        resolved: str = resolve(element, executor_input_dict, **names)
        return resolved

    placeholder_utils.resolve_individual_placeholder = resolve_placeholder
    subprocess_task_handler.replace_python_executable = _name_interpreter
    try:
        yield
    finally:
        placeholder_utils.resolve_individual_placeholder = resolve
        subprocess_task_handler.replace_python_executable = replace


def _name_interpreter(command: list[str], interpreter: str) -> list[str]:
    """Puts the interpreter into the script of a command; its other parts are code and values."""
    quoted = shlex.quote(interpreter)
    return [
        part.replace("python3", quoted) if all(text in part for text in _SCRIPT_PARTS) else part for part in command
    ]
