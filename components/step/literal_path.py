"""A folder's path for a reader that takes some characters of paths for a pattern.

TensorFlow looks for checkpoints and SavedModels with patterns as a shell has them, and knows no way to quote one.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATTERN_CHARACTERS = frozenset("*?[\\")


@contextmanager
def literal_path(folder: Path) -> Iterator[Path]:
    r"""Gives a folder a second path, without `*`, `?`, `[` and `\`, for as long as it is read.

    Args:
        folder: There, and not to be moved meanwhile.

    Yields:
        The folder's own path where that will do, else that of a link to it.
    """
    if PATTERN_CHARACTERS.isdisjoint(str(folder)):
        yield folder
        return
    usual = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(dir=usual if PATTERN_CHARACTERS.isdisjoint(usual) else "/tmp") as directory:
        link = Path(directory, "folder")
        link.symlink_to(folder.absolute())
        yield link
