"""The contract between ingest and its consumers: which shards make up a data set, and how to know they are whole."""

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal, NoReturn

from pydantic import BaseModel, ConfigDict

from kfp_image_classification.components.contracts.content_seals import ContentSeals
from kfp_image_classification.components.contracts.data_report import DataReport
from kfp_image_classification.components.contracts.split_names import SPLITS as SPLITS
from kfp_image_classification.components.contracts.split_names import SplitName as SplitName
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.step.whole_file import write_whole

MANIFEST_FILE = "manifest.json"
# Beside a manifest: the state of each shard when its checksum was last found right. Without it, all are read again.
CHECKED_FILE = "checked.json"
# See `components/contracts/records.py`.
RecordLayout = Literal["tfrecord-gzip-raw-1", "tfrecord-encoded-1"]
RAW: RecordLayout = "tfrecord-gzip-raw-1"
ENCODED: RecordLayout = "tfrecord-encoded-1"


class Shard(BaseModel):
    """One TFRecord file.

    Attributes:
        file: Path relative to the manifest's `root`.
        examples: Number of records.
        bytes: Size of the file on disk.
        sha256: Checksum of the file on disk, hexadecimal.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    examples: int
    bytes: int
    sha256: str


class Split(BaseModel):
    """The shards of one split.

    Attributes:
        shards: In a fixed order; their number is a multiple of the number of workers.
        class_counts: Examples of each class, in the order of the manifest's `class_names`.
    """

    model_config = ConfigDict(frozen=True)

    shards: list[Shard]
    class_counts: list[int]

    @property
    def examples(self) -> int:
        return sum(shard.examples for shard in self.shards)


class DatasetManifest(BaseModel):
    """What a data set consists of.

    Attributes:
        format: Record layout; see `components/contracts/records.py`.
        name: The data set's name, as given to ingest.
        version: The source's version.
        seed: Seed of the split and of the order of the examples.
        image_shape: (height, width, channels) of every image, uint8; encoded ones are fitted to it when they are read.
        class_names: A label is an index into this list.
        root: Absolute folder of the shards; empty when they lie beside the manifest.
        splits: train, validation and test.
        report: What ingest saw of the images; None in data sets of earlier versions.
    """

    model_config = ConfigDict(frozen=True)

    format: RecordLayout = RAW
    name: str
    version: str
    seed: int
    image_shape: tuple[int, int, int]
    class_names: list[str]
    root: str = ""
    splits: dict[SplitName, Split]
    report: DataReport | None = None

    @property
    def fingerprint(self) -> str:
        """Identifies the content: equal for equal images, labels, splits and order, wherever the files lie."""
        shards = [shard.sha256 for name in SPLITS for shard in self.splits[name].shards]
        content = json.dumps([self.format, self.image_shape, self.class_names, shards])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


class Dataset:
    """A manifest together with the folder in which it was found.

    Attributes:
        refused: Why a shard could not be taken, the last time that this happened; for whoever reads through a library
            that passes on no errors but its own.
    """

    def __init__(self, directory: str | Path) -> None:
        """Reads the manifest.

        Raises:
            StageFailed: When the folder holds no readable manifest.
        """
        self.directory = Path(directory)
        self.refused: StageFailed | None = None
        self._seals = ContentSeals()
        path = self.directory / MANIFEST_FILE
        try:
            self.manifest = DatasetManifest.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StageFailed(f"dataset = {str(directory)!r}: no readable data set manifest ({error})") from None

    def path(self, shard: Shard) -> Path:
        return Path(self.manifest.root or self.directory) / shard.file

    def check_sizes(self, shards: Iterable[Shard]) -> None:
        """Sees that shards are there with the size in the manifest, without reading them: `read` does the rest.

        Raises:
            StageFailed: Naming the first shard that is missing or has another size.
        """
        for shard in shards:
            self._check_size(self.path(shard), shard)

    def read(self, shard: Shard) -> bytes:
        """Reads a shard's file, and compares what it read with the checksum in the manifest.

        Later readings are compared with what the first one has read, see `content_seals.py`.

        Raises:
            StageFailed: When the shard is missing, truncated or altered.
        """
        path = self.path(shard)
        self._check_size(path, shard)
        try:
            content = path.read_bytes()
        except OSError as error:
            self._refuse(path, f"cannot be read ({error})")
        if len(content) != shard.bytes:
            self._refuse(path, f"{len(content)} bytes were read, the manifest says {shard.bytes}")
        if shard.sha256 in self._seals:
            if not self._seals.fits(shard.sha256, content):
                self._refuse(path, "its content is not what it was when its sha256 was compared: the file is altered")
            return content
        if hashlib.sha256(content).hexdigest() != shard.sha256:
            self._refuse(path, "its sha256 is not the manifest's: the file is altered")
        self._seals.add(shard.sha256, content)
        return content

    def _check_size(self, path: Path, shard: Shard) -> None:
        try:
            size = path.stat().st_size
        except OSError:
            self._refuse(path, "the file is missing")
        if size != shard.bytes:
            self._refuse(path, f"{size} bytes, the manifest says {shard.bytes}: the file is truncated or altered")

    def is_whole(self) -> bool:
        """Whether every shard is there and right.

        Reads only those shards that changed since they were last found right, as their size and time of change tell.
        """
        checked = self._checked()
        found: dict[str, list[int]] = {}
        for name in SPLITS:
            for shard in self.manifest.splits[name].shards:
                try:
                    status = self.path(shard).stat()
                    state = [status.st_size, status.st_mtime_ns]
                    if status.st_size != shard.bytes:
                        return False
                    if checked.get(shard.file) != state and file_sha256(self.path(shard)) != shard.sha256:
                        return False
                except OSError:
                    return False
                found[shard.file] = state
        if found != checked:
            with suppress(OSError):  # it only saves time
                write_whole(self._checked_file, json.dumps(found))
        return True

    @property
    def _checked_file(self) -> Path:
        return Path(self.manifest.root or self.directory, CHECKED_FILE)

    def _checked(self) -> dict[str, list[int]]:
        try:
            checked = json.loads(self._checked_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return checked if isinstance(checked, dict) else {}

    def _refuse(self, path: Path, reason: str) -> NoReturn:
        # A disk may spoil a file and leave its time: whoever looks next must not rely on that.
        with suppress(OSError):
            self._checked_file.unlink()
        self.refused = StageFailed(f"shard {path}: {reason}; run the pipeline again, which makes the data set anew")
        raise self.refused


def is_whole(directory: str | Path) -> bool:
    """Whether a folder holds a data set, and every shard of it is there and right."""
    try:
        return Dataset(directory).is_whole()
    except StageFailed:
        return False


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
