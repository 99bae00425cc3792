"""Images in buckets, read from an S3 server over HTTP."""

import csv
import io
import pickle
from multiprocessing import get_context
from pathlib import Path

import boto3
import pytest
import s3fs
from cases.odd_images import IMAGES, REFUSED

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.recipe import recipe
from kfp_image_classification.components.ingest.sharding import write_dataset
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.ingest.sources.storage import _file_system
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.step.stage_log import stage_log

IMAGE = IMAGES["rgb.jpg"]


class S3:
    """A server, a client of it, and what it was asked."""

    def __init__(self, url: str) -> None:
        self.client = boto3.client("s3", endpoint_url=url, region_name="us-east-1")

    def put(self, bucket: str, **files: bytes) -> None:
        for name, content in files.items():
            self.client.put_object(Bucket=bucket, Key=name, Body=content)


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    _file_system.cache_clear()
    s3 = S3(s3_server)
    s3.client.create_bucket(Bucket=tmp_path.name.replace("_", "-"))
    return s3


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    return tmp_path.name.replace("_", "-")


def options(dataset: str) -> IngestOptions:
    return IngestOptions(dataset=dataset, validation_share=0.25, workers=1, seed=0, image_size=32)


def fill(s3: S3, bucket: str, images: int = 6) -> None:
    for name in ("cat", "dog"):
        contents = {index: IMAGE + name.encode() + bytes([index]) for index in range(images)}
        s3.put(bucket, **{f"pets/{name}/{index}.jpg": content for index, content in contents.items()})


def test_a_folder_in_a_bucket_becomes_a_data_set(s3: S3, bucket: str, tmp_path: Path) -> None:
    fill(s3, bucket, 40)  # more than are fetched at the same time
    s3.put(bucket, **{"pets/": b"", "pets/cat/": b"", "pets/cat/notes.txt": b"x", "pets/.hidden/1.jpg": IMAGE})
    asked = options(f"image_folder:s3://{bucket}/pets/")
    source = open_source(asked)
    assert (source.class_names, len(source.splits["train"])) == (["cat", "dog"], 80)
    assert source.skipped == {"files that end in .txt": 1, "hidden files and folders": 1}
    manifest = write_dataset(source, asked, tmp_path / "out", stage_log("test"))
    assert Dataset(tmp_path / "out").is_whole()
    assert {name: split.class_counts for name, split in manifest.splits.items()} == {
        "train": [24, 24],
        "validation": [8, 8],
        "test": [8, 8],
    }


def read_some(train: object) -> list[bytes]:
    return [*train.read(3, 9)]  # type: ignore[attr-defined]


def test_ranges_are_read_in_other_processes(s3: S3, bucket: str) -> None:
    fill(s3, bucket)
    train = open_source(options(f"image_folder:s3://{bucket}/pets")).splits["train"]
    here = read_some(train)
    assert read_some(pickle.loads(pickle.dumps(train))) == here
    with get_context("fork").Pool(1) as pool:
        assert pool.apply_async(read_some, (train,)).get(timeout=60) == here


def test_splits_and_a_change_in_a_bucket_are_seen(s3: S3, bucket: str) -> None:
    for split in ("training", "valid", "test"):
        s3.put(bucket, **{f"{split}/{name}/1.png": IMAGE + split.encode() for name in ("a", "b")})
    asked = options(f"image_folder:s3://{bucket}")
    assert {*open_source(asked).splits} == {"train", "validation", "test"}
    keys = [recipe(asked), recipe(asked)]
    s3.put(bucket, **{"training/a/1.png": IMAGE + b"TRAINING"})
    keys.append(recipe(asked))
    assert keys[0] == keys[1] != keys[2]


def test_listing_takes_a_request_a_page_and_none_an_object(
    s3: S3, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(s3, bucket, 120)
    calls: list[str] = []
    ask = s3fs.S3FileSystem._call_s3

    async def counted(self, method, *arguments, **named):
        calls.append(method if isinstance(method, str) else str(method))
        return await ask(self, method, *arguments, **named)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    source = open_source(options(f"image_folder:s3://{bucket}/pets"))
    assert len(source.splits["train"]) == 240
    assert not {"head_object", "get_object"} & {*calls}
    assert len(calls) < 10


def test_a_list_names_images_in_buckets_and_beside_it(s3: S3, bucket: str, tmp_path: Path) -> None:
    fill(s3, bucket)
    rows = [f"training,s3://{bucket}/pets/{name}/{index}.jpg,{name}" for name in ("cat", "dog") for index in range(4)]
    rows += [f"test,s3://{bucket}/pets/cat/5.jpg,cat", "validation,../pets/dog/5.jpg,dog"]
    (tmp_path / "rows.csv").write_text("\n".join(rows[:-1]))
    here = open_source(options(f"image_list:{tmp_path / 'rows.csv'}"))
    assert {split: len(examples) for split, examples in here.splits.items()} == {"train": 8, "test": 1}
    assert [*here.splits["test"].read(0, 1)] == [IMAGE + b"cat\5"]
    s3.put(bucket, **{"pets/list.jsonl": b'{"image": "cat/1.jpg", "label": "c"}\n{"image": "dog/2.jpg", "label": "d"}'})
    there = open_source(options(f"image_list:s3://{bucket}/pets/list.jsonl"))
    assert sorted(there.splits["train"].read(0, 2)) == [IMAGE + b"cat\1", IMAGE + b"dog\2"]


ODD_NAMES = ["x y", "x+y", "x#y", "x%20y", "x?y", "x[1]", "x*", "x{a,b}", "é", "x&y=z", "x~", "-x", "a:b", " x", "x\\y"]


@pytest.mark.parametrize("form", ["folder", "relative", "absolute"])
def test_names_may_have_any_sign(form: str, s3: S3, bucket: str) -> None:
    root, classes = "my pets+[1]#*?", ["c?t", "d[o]g*"]
    names = [f"{root}/{name}/{file}.png" for name in classes for file in ODD_NAMES]
    images = {name: IMAGE + name.encode() for name in names}
    s3.put(bucket, **images)
    rows = io.StringIO()
    begin = f"s3://{bucket}" if form == "absolute" else "../here/.."
    csv.writer(rows).writerows([["image", "label"], *([f"{begin}/{name}", name.split("/")[1]] for name in images)])
    s3.put(bucket, **{"lists #1/x.csv": rows.getvalue().encode()})
    where = f"image_folder:s3://{bucket}/{root}" if form == "folder" else f"image_list:s3://{bucket}/lists #1/x.csv"
    source = open_source(options(where))
    assert source.class_names == classes
    assert sorted(source.splits["train"].read(0, 99)) == sorted(images.values())


def test_all_problems_of_a_bucket_are_named(s3: S3, bucket: str, tmp_path: Path) -> None:
    fill(s3, bucket)
    s3.put(bucket, **{"pets/cat/x.jpg": REFUSED["webp_named.jpg"][0], "pets/dog/y.jpg": b""})
    asked = options(f"image_folder:s3://{bucket}/pets")
    with pytest.raises(InvalidInput) as error:
        write_dataset(open_source(asked), asked, tmp_path / "out", stage_log("test"))
    assert sorted(problem.removeprefix(f"dataset = {asked.dataset!r}: ") for problem in error.value.problems) == [
        f"s3://{bucket}/pets/cat/x.jpg is a WebP image; convert it to PNG or JPEG, or remove it",
        f"s3://{bucket}/pets/dog/y.jpg is empty; replace or remove it",
    ]
    source = open_source(asked)
    for key in ("pets/cat/1.jpg", "pets/dog/4.jpg"):
        s3.client.delete_object(Bucket=bucket, Key=key)
    with pytest.raises(InvalidInput) as error:
        write_dataset(source, asked, tmp_path / "out", stage_log("test"))
    assert sorted(problem.removeprefix(f"dataset = {asked.dataset!r}: ") for problem in error.value.problems) == [
        f"s3://{bucket}/pets/cat/1.jpg cannot be read: it is not there; mend or remove it",
        f"s3://{bucket}/pets/cat/x.jpg is a WebP image; convert it to PNG or JPEG, or remove it",
        f"s3://{bucket}/pets/dog/4.jpg cannot be read: it is not there; mend or remove it",
        f"s3://{bucket}/pets/dog/y.jpg is empty; replace or remove it",
    ]
    (tmp_path / "list.csv").write_text(f"s3://{bucket}/pets/cat/77.jpg,a\ns3://{bucket}/pets/dog/0.jpg,b\n")
    with pytest.raises(InvalidInput, match=rf"line 1: s3://{bucket}/pets/cat/77.jpg is not there"):
        open_source(options(f"image_list:{tmp_path / 'list.csv'}"))


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        ("image_folder:s3://{bucket}/nothing", "s3://{bucket}/nothing holds nothing"),
        ("image_folder:s3://no-such-bucket-{bucket}", "s3://no-such-bucket-{bucket} holds nothing"),
        ("image_list:s3://{bucket}/no.csv", "s3://{bucket}/no.csv cannot be read: it is not there"),
        ("image_folder:s3://", "s3://: names no bucket; give a path, s3://BUCKET/PATH or gs"),
        ("image_list:s3:///x.csv", "s3:///x.csv: names no bucket"),
        ("image_list:s3://{bucket}", "s3://{bucket} names a bucket, and no list in it"),
        ("image_folder:ftp://x/y", "ftp://x/y: ftp:// is not known here; give a path, s3://BUCKET/PATH or gs"),
    ],
)
def test_what_is_not_there_is_told(dataset: str, told: str, s3: S3, bucket: str) -> None:
    with pytest.raises(InvalidInput, match=told.format(bucket=bucket)):
        open_source(options(dataset.format(bucket=bucket)))


def test_a_server_that_is_away_and_missing_credentials_are_told(
    s3: S3, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(s3, bucket, 1)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    _file_system.cache_clear()
    with pytest.raises(InvalidInput, match=r"cannot be listed: .*credentials are taken from AWS_ACCESS_KEY_ID"):
        open_source(options(f"image_folder:s3://{bucket}/pets"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    _file_system.cache_clear()
    with pytest.raises(InvalidInput, match=r"cannot be listed: .*127.0.0.1:9"):
        open_source(options(f"image_folder:s3://{bucket}/pets"))
