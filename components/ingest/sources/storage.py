"""Where files lie, on a disk or in a bucket: their names by folder, and their bytes."""

import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from kfp_image_classification.components.contracts.buckets import BucketUnusable, bucket_scheme, open_buckets, reason

# Files that are fetched from a bucket at the same time; twice as many are in memory.
FETCHED_TOGETHER = 32


class UnreadableStorage(Exception):
    """A place that cannot be listed, or is not known; the message says why, and what to do."""


class Entry(NamedTuple):
    """What is in a folder.

    Attributes:
        name: Without the folder.
        is_folder: Whether it is a folder, or a link to one.
        is_nothing: Whether it is neither file nor folder: a link to nothing, or what a program left to talk through.
        is_link: Whether it is a link at all.
        state: What changes when its content does: size and time, or a bucket's own tag.
    """

    name: str
    is_folder: bool
    is_nothing: bool
    is_link: bool
    state: str


class Unreadable(NamedTuple):
    """In place of a file's bytes: why they could not be had."""

    reason: str


class Storage(Protocol):
    """Some place where folders of files are; `/` parts the names on the way to one."""

    def is_folder(self, path: str) -> bool: ...

    def entries(self, path: str) -> list[Entry]:
        """What is in a folder, sorted by name.

        Raises:
            UnreadableStorage: When it cannot be listed.
        """

    def read(self, paths: Sequence[str]) -> Iterator[bytes | Unreadable]:
        """The contents of files, one after the other."""


def storage(path: str) -> Storage:
    """The storage of a path or URL.

    Raises:
        UnreadableStorage: When it is a bucket of a kind that nobody knows.
    """
    try:
        scheme = bucket_scheme(path)
    except BucketUnusable as error:
        raise UnreadableStorage(f"{path}: {error}") from None
    return Bucket(scheme) if scheme else Disk()


def is_in_bucket(path: str) -> bool:
    return "://" in path


class Disk:
    """Folders of this machine, or mounted into it. Links are followed."""

    def is_folder(self, path: str) -> bool:
        with suppress(OSError):  # its name is too long, say
            return Path(path).is_dir()
        return False

    def entries(self, path: str) -> list[Entry]:
        try:
            with os.scandir(path) as found:
                return sorted(map(self._entry, found))
        except OSError as error:
            raise UnreadableStorage(f"{path} cannot be listed: {error.strerror}") from None
        except ValueError:  # a zero byte, or half a sign of UTF-16
            raise UnreadableStorage(f"{path!r} cannot be listed: no file is called so") from None

    def _entry(self, found: "os.DirEntry[str]") -> Entry:
        try:
            status = found.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
            is_nothing = not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode))
            return Entry(found.name, found.is_dir(), is_nothing, found.is_symlink(), state)
        except OSError:  # a link to nothing, or to itself
            return Entry(found.name, False, True, True, "")

    def read(self, paths: Sequence[str]) -> Iterator[bytes | Unreadable]:
        for path in paths:
            try:
                yield Path(path).read_bytes()
            except OSError as error:
                yield Unreadable(error.strerror or type(error).__name__)
            except ValueError:
                yield Unreadable("no file is called so")


@lru_cache
def _file_system(scheme: str, _process: int) -> Any:
    """One of each kind, for all threads; not of another process, as connections do not survive a fork."""
    return open_buckets(scheme)


class Bucket:
    """Objects of a bucket whose names look like those of files in folders.

    A listing asks for a page of names at a time, never for one object. Reading fetches several objects at the same
    time, and the next ones while those are used.
    """

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme

    def _files(self) -> Any:
        return _file_system(self._scheme, os.getpid())

    def is_folder(self, path: str) -> bool:
        return bool(self.entries(path))

    def entries(self, path: str) -> list[Entry]:
        root = path.rstrip("/")
        try:
            found = self._files().ls(root, detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise UnreadableStorage(f"{root} cannot be listed: {reason(error, self._scheme)}") from None
        entries = (self._entry(item, root.partition("://")[2]) for item in found)
        return sorted(entry for entry in entries if entry is not None)

    def _entry(self, item: dict[str, Any], folder: str) -> Entry | None:
        name = str(item["name"]).rstrip("/").removeprefix(folder).strip("/")
        if not name or "/" in name:  # the folder's own mark, which some tools put there; or the path is a file's
            return None
        if item["type"] == "directory":
            return Entry(name, True, False, False, "")
        tag = item.get("ETag") or item.get("etag") or item.get("md5Hash") or item.get("mtime")
        return Entry(name, False, False, False, f"{item.get('size')} {tag}")

    def read(self, paths: Sequence[str]) -> Iterator[bytes | Unreadable]:
        batches = [paths[at : at + FETCHED_TOGETHER] for at in range(0, len(paths), FETCHED_TOGETHER)]
        with ThreadPoolExecutor(1) as ahead:
            fetched = [ahead.submit(self._fetch, batch) for batch in batches[:1]]
            for batch in [*batches[1:], None]:
                if not fetched:
                    return
                contents = fetched.pop().result()
                if batch is not None:
                    fetched.append(ahead.submit(self._fetch, batch))
                yield from contents

    def _fetch(self, paths: Sequence[str]) -> list[bytes | Unreadable]:
        try:
            # Not `cat`, which takes *, ? and [ in a name for a pattern.
            contents = self._files().cat_ranges([*paths], None, None, on_error="return")
        except Exception as error:
            return [Unreadable(reason(error, self._scheme))] * len(paths)
        return [self._content(content) for content in contents]

    def _content(self, content: Any) -> bytes | Unreadable:
        return content if isinstance(content, bytes) else Unreadable(reason(content, self._scheme))
