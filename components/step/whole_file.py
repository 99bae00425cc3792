"""Files and folders that others may read at any moment: there whole, or not at all."""

from pathlib import Path
from uuid import uuid4


def write_whole(path: Path, text: str) -> None:
    """Writes under another name in the same folder, one of its own for each writer, then renames."""
    partial = path.with_name(f"{path.name}.{uuid4().hex[:8]}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)


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
