"""The standard streams: there, and able to take any text, whatever the terminal's encoding is."""

import io
import locale
import os
import sys
from typing import TextIO


def steady_streams() -> None:
    """Opens the standard streams that are closed, and lets them show as `?` what their encoding does not have.

    Text files of packages that name no encoding are UTF-8 from here on, as the locale says so.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next file that is opened would get this number, and be taken for the stream.
            os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if locale.getencoding().lower() != "utf-8":
        for name in ("C.UTF-8", "en_US.UTF-8"):
            try:
                locale.setlocale(locale.LC_CTYPE, name)
                return
            except locale.Error:
                continue


def write_line(stream: TextIO, line: str) -> None:
    """Shows a line at once; from when nobody reads the stream any more (`| head`, a full disk), nothing is shown."""
    try:
        stream.write(line + "\n")
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def start_in_utf8() -> None:
    """Begins this program anew when the shell's encoding is another than UTF-8, in which the steps run.

    Names of files and arguments are read in it before any code runs, so the same bytes would be other letters in the
    steps. What is shown keeps the terminal's encoding.
    """
    steady_streams()
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    shown = getattr(sys.stdout, "encoding", None) or "ascii"
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": f"{shown}:replace"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
