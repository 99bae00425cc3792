"""Folders of a disk and of a bucket, and what is said of an address, the same wherever one is given."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from kfp_image_classification.components.contracts.buckets import BUCKETS
from kfp_image_classification.components.contracts.folders import FolderFailed, open_folder
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.monitor.feedback import write_image_list
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.step.options import options_from
from kfp_image_classification.components.train.options import TrainOptions


def ingest(place: str) -> object:
    return open_source(IngestOptions(dataset=f"image_folder:{place}", validation_share=0.1, workers=1, seed=0))


def train(place: str) -> object:
    return options_from(TrainOptions, {"weights": place, "model_type": "cnn", "workers": 1, "epochs": 1})


DOORS: list[Callable[[str], object]] = [
    lambda place: open_folder(place, "output"),
    lambda place: write_image_list([], place, ""),
    ingest,
    train,
]


@pytest.mark.parametrize("door", DOORS, ids=["collector", "monitor", "ingest", "train"])
@pytest.mark.parametrize(
    ("place", "trouble"),
    [
        ("ftp://x/y", "ftp:// is not known here"),
        ("http://x", "http:// is not known here"),
        ("s3://", "names no bucket"),
    ],
)
def test_address_of_no_bucket(door: Callable[[str], object], place: str, trouble: str) -> None:
    with pytest.raises(InvalidInput, match=f"{place}.*: {trouble}; give a path, s3://BUCKET/PATH or gs://BUCKET/PATH"):
        door(place)


@pytest.mark.parametrize("scheme", BUCKETS)
def test_package_that_is_not_installed(scheme: str) -> None:
    program = (
        f"import sys; sys.modules['{BUCKETS[scheme].package}'] = None\n"
        "from kfp_image_classification.components.contracts.folders import open_folder\n"
        f"open_folder('{scheme}://a/b', 'output')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-1].endswith(
        f"output = '{scheme}://a/b': {scheme}:// needs the Python package {BUCKETS[scheme].package}; "
        "pip install 'kfp-image-classification[buckets]'"
    )


def test_folder_of_a_bucket(s3_server: str) -> None:
    httpx.put(f"{s3_server}/log").raise_for_status()
    folder = open_folder("s3://log/of [all] digits*?", "output")
    assert folder.files() == []
    for name in ("a/1", "a/2", "a/3"):
        folder.write(name, name.encode())
    folder.delete(["a/1"])
    files = {file.name: file for file in folder.files()}
    assert files.keys() == {"a/2", "a/3"}
    for name, file in files.items():
        assert (folder.read(name), file.size) == (name.encode(), 3)
        assert abs((datetime.now(UTC) - file.written).total_seconds()) < 60
    with pytest.raises(FolderFailed, match=r"^s3://log/of \[all\] digits\*\?/a/1 cannot be read: it is not there$"):
        folder.read("a/1")


@pytest.mark.usefixtures("s3_server")
def test_bucket_that_is_not_there() -> None:
    folder = open_folder("s3://no-such-bucket/digits", "output")
    assert folder.files() == []
    with pytest.raises(FolderFailed, match="^there is no bucket s3://no-such-bucket; make it, or name another$"):
        folder.write("a", b"")


@pytest.mark.usefixtures("s3_server")
def test_bucket_without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    folder = open_folder("s3://log/digits", "output")
    for what, ask in (
        (r"digits cannot be listed", folder.files),
        (r"digits/a cannot be read", lambda: folder.read("a")),
        (r"digits/a cannot be written", lambda: folder.write("a", b"")),
        (r"digits cannot be deleted from", lambda: folder.delete(["a"])),
    ):
        with pytest.raises(FolderFailed, match=f"^s3://log/{what}: .*; credentials are taken from AWS_ACCESS_KEY_ID"):
            ask()


def test_folder_of_a_disk_has_files_alone(tmp_path: Path) -> None:
    folder = open_folder(str(tmp_path / "digits"), "output")
    assert folder.files() == []
    folder.write("a/1", b"1")
    os.mkfifo(tmp_path / "digits" / "pipe")
    (tmp_path / "digits" / "nowhere").symlink_to("none")
    (tmp_path / "digits" / "link").symlink_to("a/1")
    assert [file.name for file in folder.files()] == ["a/1", "link"]
    with pytest.raises(FolderFailed, match=f"^{tmp_path}/digits/a/1 cannot be listed: Not a directory$"):
        open_folder(str(tmp_path / "digits" / "a" / "1"), "output").files()
