"""Where a payload log is kept: a folder of this machine, or of a bucket. A file is there whole, or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from kfp_image_classification.components.contracts.buckets import BUCKETS, BucketUnusable, open_buckets
from kfp_image_classification.components.step.errors import InvalidInput

PARTIAL = ".partial"


class FolderFailed(Exception):
    """The folder could not be listed, read or written; the message says why."""


@dataclass(frozen=True)
class KeptFile:
    """A file of the log.

    Attributes:
        name: Its path within the folder.
        size: In bytes.
        written: When it was, in UTC.
    """

    name: str
    size: int
    written: datetime


class EventFolder(Protocol):
    """A folder of files; each method raises FolderFailed where the folder's storage does not do it."""

    def files(self) -> list[KeptFile]:
        """All files at any depth, the oldest first; those that are not whole yet are left out."""

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, content: bytes) -> None: ...

    def delete(self, names: Iterable[str]) -> None: ...


def event_folder(place: str, parameter: str) -> EventFolder:
    """The folder of a path or URL.

    Args:
        place: A path, `s3://bucket/path` or `gs://bucket/path`.
        parameter: What it was given as, for the message.

    Raises:
        InvalidInput: When it is a bucket of a kind that nobody knows, or that cannot be used from here.
    """
    scheme, separator, rest = place.partition("://")
    if not separator:
        return DiskFolder(Path(place))
    if scheme not in BUCKETS or not rest.strip("/"):
        raise InvalidInput(f"{parameter} = {place!r}: give a path, s3://BUCKET/PATH or gs://BUCKET/PATH")
    try:
        return BucketFolder(open_buckets(scheme), rest.strip("/"))
    except BucketUnusable as error:
        raise InvalidInput(f"{parameter} = {place!r}: {error}") from None


class DiskFolder:
    """A folder of this machine, or mounted into it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def files(self) -> list[KeptFile]:
        found = []
        try:
            for folder, _, names in os.walk(self._root, onerror=_raise):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):  # another one has just deleted it
                        if not name.endswith(PARTIAL):
                            found.append(self._file(Path(folder, name)))
        except OSError as error:
            raise FolderFailed(f"{self._root} cannot be listed: {error.strerror}") from None
        return _oldest_first(found)

    def _file(self, path: Path) -> KeptFile:
        status = path.stat()
        return KeptFile(
            path.relative_to(self._root).as_posix(), status.st_size, datetime.fromtimestamp(status.st_mtime, UTC)
        )

    def read(self, name: str) -> bytes:
        try:
            return (self._root / name).read_bytes()
        except OSError as error:
            raise FolderFailed(f"{self._root / name} cannot be read: {error.strerror}") from None

    def write(self, name: str, content: bytes) -> None:
        path = self._root / name
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_bytes(content)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise FolderFailed(f"{path} cannot be written: {error.strerror}") from None

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                (self._root / name).unlink(missing_ok=True)
            except OSError as error:
                raise FolderFailed(f"{self._root / name} cannot be deleted: {error.strerror}") from None


class BucketFolder:
    """Objects of a bucket under a prefix; an object appears when all of it has arrived.

    Args:
        files: fsspec's file system of the bucket.
        root: Bucket and prefix.
    """

    def __init__(self, files: Any, root: str) -> None:
        self._files = files
        self._root = root

    def files(self) -> list[KeptFile]:
        try:
            found = self._files.find(self._root, detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:  # each kind of bucket has its own, and they share nothing
            raise FolderFailed(f"{self._root} cannot be listed: {_reason(error)}") from None
        return _oldest_first(
            KeptFile(name.removeprefix(self._root).strip("/"), int(item["size"]), _written(item))
            for name, item in found.items()
        )

    def read(self, name: str) -> bytes:
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
        except Exception as error:
            raise FolderFailed(f"{self._root}/{name} cannot be read: {_reason(error)}") from None
        return content

    def write(self, name: str, content: bytes) -> None:
        try:
            self._files.pipe_file(f"{self._root}/{name}", content)
        except Exception as error:
            raise FolderFailed(f"{self._root}/{name} cannot be written: {_reason(error)}") from None

    def delete(self, names: Iterable[str]) -> None:
        try:
            for name in names:  # not `rm`, which takes *, ? and [ in a name for a pattern
                with contextlib.suppress(FileNotFoundError):  # another one has just deleted it
                    self._files.rm_file(f"{self._root}/{name}")
        except Exception as error:
            raise FolderFailed(f"{self._root}: files cannot be deleted: {_reason(error)}") from None


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # not there yet, or not any more: it is empty
        raise error


def _oldest_first(files: Iterable[KeptFile]) -> list[KeptFile]:
    return sorted(files, key=lambda file: (file.written, file.name))


def _written(item: dict[str, Any]) -> datetime:
    """S3 and Google call it differently; one gives a time, the other text."""
    value = item.get("LastModified") or item.get("mtime") or item.get("updated") or datetime.now(UTC)
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _reason(error: BaseException) -> str:
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0]}" if words else type(error).__name__
