"""A folder of this machine, or of a bucket. A file that is written there is there whole, or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from kfp_image_classification.components.contracts.buckets import BucketUnusable, bucket_scheme, open_buckets, reason
from kfp_image_classification.components.step.errors import InvalidInput

PARTIAL = ".partial"


class FolderFailed(Exception):
    """The folder could not be listed, read or written; the message says why."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a folder.

    Attributes:
        name: Its path within the folder.
        size: In bytes.
        written: When it was, in UTC.
    """

    name: str
    size: int
    written: datetime


class Folder(Protocol):
    """A folder of files; each method raises FolderFailed where the folder's storage does not do it."""

    def files(self) -> list[StoredFile]:
        """All files at any depth, the oldest first; those that are not whole yet are left out."""

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, content: bytes) -> None: ...

    def delete(self, names: Iterable[str]) -> None: ...


def open_folder(place: str, parameter: str) -> Folder:
    """The folder of a path or URL.

    Args:
        place: A path, `s3://bucket/path` or `gs://bucket/path`.
        parameter: What it was given as, for the message.

    Raises:
        InvalidInput: When it is a bucket of a kind that nobody knows, or that cannot be used from here. Whether it is
            there, its methods find out.
    """
    try:
        scheme = bucket_scheme(place)
        return BucketFolder(scheme, place) if scheme else DiskFolder(Path(place))
    except BucketUnusable as error:
        raise InvalidInput(f"{parameter} = {place!r}: {error}") from None


class DiskFolder:
    """A folder of this machine, or mounted into it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def files(self) -> list[StoredFile]:
        found = []
        try:
            for folder, _, names in os.walk(self._root, onerror=_raise):
                for name in names:
                    path = Path(folder, name)
                    with contextlib.suppress(FileNotFoundError):  # another one has just deleted it
                        if path.is_file() and not name.endswith(PARTIAL):
                            found.append(self._file(path))
        except OSError as error:
            raise FolderFailed(f"{error.filename} cannot be listed: {error.strerror}") from None
        return _oldest_first(found)

    def _file(self, path: Path) -> StoredFile:
        status = path.stat()
        return StoredFile(
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
        scheme: The kind of bucket.
        url: Of the bucket and the prefix.

    Raises:
        BucketUnusable: When that kind cannot be used from here.
    """

    def __init__(self, scheme: str, url: str) -> None:
        self._files = open_buckets(scheme)
        self._scheme = scheme
        self._root = url.partition("://")[2].strip("/")

    def files(self) -> list[StoredFile]:
        try:
            found = self._files.find(self._root, detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self._failed("", "listed", error) from None
        return _oldest_first(
            StoredFile(name.removeprefix(self._root).strip("/"), int(item["size"]), _written(item))
            for name, item in found.items()
        )

    def read(self, name: str) -> bytes:
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
        except Exception as error:
            raise self._failed(name, "read", error) from None
        return content

    def write(self, name: str, content: bytes) -> None:
        try:
            self._files.pipe_file(f"{self._root}/{name}", content)
        except FileNotFoundError:
            bucket = self._root.partition("/")[0]
            raise FolderFailed(f"there is no bucket {self._scheme}://{bucket}; make it, or name another") from None
        except Exception as error:
            raise self._failed(name, "written", error) from None

    def delete(self, names: Iterable[str]) -> None:
        try:
            for name in names:  # not `rm`, which takes *, ? and [ in a name for a pattern
                with contextlib.suppress(FileNotFoundError):  # another one has just deleted it
                    self._files.rm_file(f"{self._root}/{name}")
        except Exception as error:
            raise self._failed("", "deleted from", error) from None

    def _failed(self, name: str, what: str, error: Exception) -> FolderFailed:
        place = f"{self._scheme}://{self._root}/{name}".rstrip("/")
        return FolderFailed(f"{place} cannot be {what}: {reason(error, self._scheme)}")


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # not there yet, or not any more: it is empty
        raise error


def _oldest_first(files: Iterable[StoredFile]) -> list[StoredFile]:
    return sorted(files, key=lambda file: (file.written, file.name))


def _written(item: dict[str, Any]) -> datetime:
    """S3 and Google call it differently; one gives a time, the other text."""
    value = item.get("LastModified") or item.get("mtime") or item.get("updated") or datetime.now(UTC)
    return datetime.fromisoformat(value) if isinstance(value, str) else value
