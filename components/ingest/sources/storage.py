"""Where files lie, on a disk or in a bucket: their names by folder, and their bytes."""

import asyncio
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from kfp_image_classification.components.contracts.buckets import BUCKETS, BucketUnusable, open_buckets

CREDENTIALS = {
    "s3": "credentials are taken from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or the machine's role, "
    "and another server than Amazon's from AWS_ENDPOINT_URL",
    "gs": "credentials are taken from GOOGLE_APPLICATION_CREDENTIALS, gcloud or the machine's account",
}
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
        UnreadableStorage: When it is a bucket of a kind that nobody knows, or whose Python package is not installed, or
            none is named.
    """
    scheme, separator, rest = path.partition("://")
    if not separator:
        return Disk()
    if scheme not in BUCKETS:
        known = " and ".join(f"{name}://" for name in BUCKETS)
        raise UnreadableStorage(f"{path}: {scheme}:// is not known here; buckets are {known}")
    if not rest.partition("/")[0]:
        raise UnreadableStorage(f"{path} names no bucket; give {scheme}://BUCKET or {scheme}://BUCKET/PATH")
    return Bucket(scheme)


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
    try:
        return open_buckets(scheme)
    except BucketUnusable as error:
        raise UnreadableStorage(str(error)) from None


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
        except UnreadableStorage:
            raise
        except Exception as error:  # each kind of bucket has its own, and they share nothing
            raise UnreadableStorage(self._trouble(root, error)) from None
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
            return [Unreadable(self._reason(error))] * len(paths)
        return [self._content(content) for content in contents]

    def _content(self, content: Any) -> bytes | Unreadable:
        return content if isinstance(content, bytes) else Unreadable(self._reason(content))

    def _trouble(self, path: str, error: BaseException) -> str:
        return f"{path} cannot be listed: {self._reason(error)}; {CREDENTIALS[self._scheme]}"

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, FileNotFoundError):
            return "it is not there"
        if isinstance(error, asyncio.TimeoutError):
            return "no answer in time"
        words = str(error).strip().splitlines()
        return f"{type(error).__name__}: {words[0]}" if words else type(error).__name__
