"""What is in a folder of images: which folders are splits, which are classes, which files are images, and the rest."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from kfp_image_classification.components.contracts.image_formats import IMAGE_SUFFIXES
from kfp_image_classification.components.contracts.split_names import SPLITS, SplitName
from kfp_image_classification.components.ingest.sources.storage import Entry, Storage, UnreadableStorage

# How people call their splits, in any case.
SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
# What systems and programs put among the user's own files, beside all that begins with a dot.
_SYSTEM_NAMES = {
    "__macosx",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "thumbs.db",
    "desktop.ini",
    "__pycache__",
}
# Words for what is not used, as they are told and counted.
HIDDEN, SYSTEM = "hidden files and folders", "files and folders that a system or a program put there"
BESIDE, NESTED = "files that are in no class's folder", "files in folders within a class's folder"
EMPTY = "folders without an image"
MOST_NAMED = 10


@dataclass
class Layout:
    """What was found.

    Attributes:
        images: Paths, relative to the root, by split and class.
        skipped: What is there and not used, in words, with how many there are of it.
        problems: What has to be mended before anything can be used.
        state: Of everything that was looked at: changes when the content does.
    """

    images: dict[SplitName, dict[str, list[str]]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    state: "hashlib._Hash" = field(default_factory=hashlib.sha256)


def folder_layout(storage: Storage, root: str) -> Layout:
    """Lists a folder, which lies in a storage; opens nothing.

    Raises:
        UnreadableStorage: When it cannot be listed; that a folder in it cannot is one of the problems.
    """
    return _Looking(storage, root).layout


class _Looking:
    def __init__(self, storage: Storage, root: str) -> None:
        self._storage, self._root = storage, root.rstrip("/")
        self.layout = Layout()
        self._told: dict[str, set[str]] = defaultdict(set)
        entries = self._usable("")
        folders = [entry.name for entry in entries if entry.is_folder]
        splits = self._splits(folders)
        self._count_files(entries, BESIDE)
        for split, folder in splits.items():
            path = f"{folder}/" if folder else ""
            inside = entries if not folder else self._usable(path)
            if folder:
                self._count_files(inside, BESIDE)
            found = {entry.name: self._class_images(path + entry.name) for entry in inside if entry.is_folder}
            self.layout.images[split] = {name: images for name, images in found.items() if images}

    def _splits(self, folders: list[str]) -> dict[SplitName, str]:
        """Which folder is which split; the root itself is train where there are none."""
        named = {folder: SPLIT_FOLDERS[folder.lower()] for folder in folders if folder.lower() in SPLIT_FOLDERS}
        # A class may be called "train", too: then images are in it, and no folders.
        named = {folder: split for folder, split in named.items() if self._holds_folders(folder)}
        if not named:
            return {"train": ""}
        others = [folder for folder in folders if folder not in named]
        by_split: dict[SplitName, str] = {}
        for folder, split in named.items():
            if split in by_split:
                self.layout.problems.append(f"{by_split[split]} and {folder} are both the {split} split; keep one")
            by_split[split] = folder
        if others:
            are_splits = "which by their names are splits" if len(named) > 1 else "which by its name is a split"
            self.layout.problems.append(
                f"beside {_listed(named)}, {are_splits}, there {'are' if len(others) > 1 else 'is'} {_listed(others)}; "
                f"splits are called {', '.join(SPLIT_FOLDERS)}: rename or move what is none"
            )
        if "train" not in by_split:
            self.layout.problems.append(f"there is {_listed(named)}, and no split called train or training; add it")
        return {split: by_split[split] for split in SPLITS if split in by_split}

    def _holds_folders(self, folder: str) -> bool:
        return any(entry.is_folder and not _set_aside(entry.name) for entry in self._entries(folder))

    def _class_images(self, folder: str) -> list[str]:
        entries = self._usable(f"{folder}/")
        images = [entry.name for entry in entries if not entry.is_folder and _is_image(entry.name)]
        for entry in entries:
            if entry.is_folder and not entry.is_link:  # a link may lead back
                self._count_nested(f"{folder}/{entry.name}/")
        self._count_endings(entry.name for entry in entries if not entry.is_folder and not _is_image(entry.name))
        if not images:
            self._skip(f"{EMPTY}: {folder}", f"more {EMPTY}")
        return [f"{folder}/{name}" for name in images]

    def _count_nested(self, folder: str) -> None:
        entries = self._usable(folder)
        self._count_files(entries, NESTED)
        for entry in entries:
            if entry.is_folder and not entry.is_link:  # a link may lead back
                self._count_nested(f"{folder}{entry.name}/")

    def _count_files(self, entries: list[Entry], words: str) -> None:
        if files := sum(not entry.is_folder for entry in entries):
            self.layout.skipped[words] += files

    def _count_endings(self, names: Iterator[str]) -> None:
        for name in names:
            stem, dot, ending = name.rpartition(".")
            words = f"files that end in .{ending.lower()}" if dot and stem else "files without an ending"
            self._skip(words, "files with other endings")

    def _skip(self, words: str, others: str) -> None:
        """Counts what is told by name, or, when so many of its kind are told by name already, with all others."""
        told = self._told[others]
        if words in told or len(told) < MOST_NAMED:
            told.add(words)
        else:
            words = others
        self.layout.skipped[words] += 1

    def _usable(self, folder: str) -> list[Entry]:
        """What is in a folder, without what is nobody's image; problems and what is set aside are noted."""
        usable = []
        for entry in self._entries(folder):
            path = folder + entry.name
            if aside := _set_aside(entry.name):
                self.layout.skipped[aside] += 1
                continue
            if not _is_utf8(path):
                self.layout.problems.append(f"the name {path!r} is not UTF-8; rename it")
                continue
            if entry.is_nothing:
                self.layout.problems.append(
                    f"{path} is a link that leads nowhere, or no file at all; mend or remove it"
                )
                continue
            self.layout.state.update(f"{path} {entry.is_folder} {entry.state * (not entry.is_folder)}\n".encode())
            usable.append(entry)
        return usable

    def _entries(self, folder: str) -> list[Entry]:
        try:
            return self._storage.entries(self._at(folder))
        except UnreadableStorage as error:
            if not folder:
                raise
            self.layout.problems.append(f"{error}; make it readable, or remove it")
            return []

    def _at(self, folder: str) -> str:
        return f"{self._root}/{folder}".rstrip("/") or "/"


def _set_aside(name: str) -> str:
    if name.startswith("."):
        return HIDDEN
    return SYSTEM if name.lower() in _SYSTEM_NAMES else ""


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _listed(names: "dict[str, SplitName] | list[str]") -> str:
    *most, last = sorted(names)
    return f"{', '.join(most[:10])} and {last}" if most else last
