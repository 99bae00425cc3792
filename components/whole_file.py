"""A file that others may read at any moment: there whole, or not at all."""

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Writes under another name in the same folder, then renames."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.rename(path)
