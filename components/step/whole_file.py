"""Files and folders that others may read at any moment: there whole, or not at all."""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Writes under another name in the same folder, then renames; of two writers the last one's text is there."""
    partial = _partial(path, text)
    try:
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def create_whole(path: Path, text: str, mode: int = 0o666) -> bool:
    """Writes a file unless there is one of that name.

    Args:
        path: Where.
        text: What.
        mode: Who may read and write it, from the first byte on; less what the process' umask takes away.

    Returns:
        Whether it did: of several writers, one does.
    """
    partial = _partial(path, text, mode)
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    except OSError:  # this file system has no links
        if path.exists():
            return False
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return True


def _partial(path: Path, text: str, mode: int = 0o666) -> Path:
    # A name that no other writer has: on a shared volume not even the process id is one.
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(text)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    return partial


def publish_folder(partial: Path, final: Path, last: str) -> None:
    """Gives a folder its name, now that it is whole.

    Where folders cannot be renamed, as on Cloud Storage FUSE, which knows files only, its files are moved one by one.

    Args:
        partial: The folder under its name of before.
        final: The name by which others look for it.
        last: Path in the folder of the file without which nobody takes the folder for whole: it is moved last.
    """
    try:
        partial.rename(final)
    except OSError:
        files = sorted(path.relative_to(partial) for path in partial.rglob("*") if path.is_file())
        for file in sorted(files, key=lambda file: file == Path(last)):
            (final / file).parent.mkdir(parents=True, exist_ok=True)
            (partial / file).replace(final / file)
        for folder in sorted((path for path in partial.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        partial.rmdir()


def try_writing(folder: Path) -> None:
    """Makes a folder where there is none, and writes a file there that has no name.

    Raises:
        OSError: When nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
