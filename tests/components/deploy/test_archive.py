"""Archives of images, scored by a real server: what becomes of each image, and what a second run does."""

import base64
import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kfp_image_classification.components.contracts.buckets import open_buckets
from kfp_image_classification.components.contracts.model_card import read_model_card

Predict = Callable[..., SimpleNamespace]
COMMAND = [sys.executable, "-m", "kfp_image_classification.components.deploy.predict"]


@pytest.fixture(scope="module")
def server(start_server: Any, trained: SimpleNamespace) -> Any:
    return start_server(trained.model, "--max_body_bytes=20000", "--max_queue=40")


@pytest.fixture(scope="module")
def pngs(trained: SimpleNamespace) -> dict[str, bytes]:
    return {example.label: base64.b64decode(example.png) for example in read_model_card(trained.model).examples}


@pytest.fixture
def archive(pngs: dict[str, bytes], tmp_path: Path) -> Path:
    """A hundred digits in folders, and what lies about in archives."""
    folder = tmp_path / "archive"
    for number in range(100):
        label = sorted(pngs)[number % len(pngs)]
        path = folder / label / f"{number:03}{'.png' if number % 2 else '.PNG'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pngs[label])
    (folder / "notes.txt").write_text("no image")
    (folder / "Thumbs.db").write_bytes(b"\0")
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "huge.png").write_bytes(bytes(30_000))
    (folder / 'a, "b".png').write_bytes(pngs["0"])
    (folder / os.fsdecode(b"\xff.png")).write_bytes(pngs["0"])
    return folder


@pytest.fixture
def score(predict: Predict) -> Predict:
    return lambda server, archive, output: predict("--url", server.url, "--input", archive, "--output", output)


def rows(output: Path) -> dict[str, dict[str, str]]:
    with output.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        read = list(csv.DictReader(file))
    names = [row["file"] for row in read]
    assert len(set(names)) == len(names), "each image has one row"
    return {row["file"]: row for row in read}


def test_each_image_has_a_row(server: Any, archive: Path, tmp_path: Path, score: Predict) -> None:
    output = tmp_path / "scores.csv"
    done = score(server, archive, output)
    assert done.code == 0, done.err
    assert done.out == f"104 images in {output}, 2 of them could not be answered\n"
    found = rows(output)
    assert list(found) == sorted(found)
    assert len(found) == 104
    for name, row in found.items():
        if name in ("broken.jpg", "huge.png"):
            assert (row["label"], row["probability"]) == ("", "")
        else:
            assert 0 < float(row["probability"]) <= 1
            assert row["error"] == ""
    assert found["broken.jpg"]["error"] == (
        "cannot be decoded: it is neither PNG nor JPEG (it begins with b'no image'); expected a whole PNG or JPEG"
    )
    assert found["huge.png"]["error"] == "the body is larger than the 20,000 bytes allowed"
    alike = {row["label"] for name, row in found.items() if name.startswith("0/")}
    assert alike == {found['a, "b".png']["label"]}


def test_second_run_asks_only_for_what_is_missing(server: Any, archive: Path, tmp_path: Path, score: Predict) -> None:
    output = tmp_path / "scores.csv"
    score(server, archive, output)
    whole = output.read_bytes()
    lines = whole.splitlines(keepends=True)
    output.write_bytes(b"".join(lines[:50]) + lines[50][:7])  # it was ended in the middle of a line
    before = server.metric("classifier_batch_images_sum")
    assert score(server, archive, output).code == 0
    assert output.read_bytes() == whole
    asked = server.metric("classifier_batch_images_sum") - before
    assert 40 <= asked <= 55
    assert score(server, archive, output).out == f"104 images in {output}\n"
    assert output.read_bytes() == whole


def test_a_row_may_be_cut_off_anywhere(server: Any, pngs: dict[str, bytes], tmp_path: Path, score: Predict) -> None:
    output = tmp_path / "scores.csv"
    (tmp_path / "in").mkdir()
    for name in ("a.png", 'b\n"c"\n.png', "d.png"):
        (tmp_path / "in" / name).write_bytes(pngs["1"])
    assert score(server, tmp_path / "in", output).code == 0
    whole = output.read_bytes()
    start = whole.index(b'"b')
    for cut in range(start, whole.index(b"\nd.png") + 8):
        output.write_bytes(whole[:cut])
        assert score(server, tmp_path / "in", output).code == 0
        assert output.read_bytes() == whole, cut


def test_killed_run_goes_on(server: Any, archive: Path, pngs: dict[str, bytes], tmp_path: Path, score: Predict) -> None:
    for number in range(300):
        (archive / f"more-{number}.png").write_bytes(pngs["1"])
    output = tmp_path / "scores.csv"
    command = [*COMMAND, "--url", server.url, "--input", str(archive), "--output", str(output)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (output.exists() and output.stat().st_size > 1000):
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < len(rows(output)) < 404
    assert score(server, archive, output).code == 0
    assert len(rows(output)) == 404


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--input", "{empty}", "--output", "{csv}"],
            "input: there is nothing, or no image, no file that ends",
        ),
        (["--input", "{empty}/none", "--output", "{csv}"], "input: there is nothing, or no image"),
        (["--input", "{other}", "--output", "{csv}"], "other.csv cannot be listed: Not a directory"),
        (["--input", "ftp://a/b", "--output", "{csv}"], "input = 'ftp://a/b': ftp:// is not known here; give a path"),
        (["--input", "s3://", "--output", "{csv}"], "input = 's3://': names no bucket; give a path, s3://BUCKET/PATH"),
        (["--input", "{archive}", "--output", "{other}"], "is another file, and is left alone"),
        (["--input", "{archive}", "--output", "{empty}/none/a.csv"], "No such file or directory"),
        (["--input", "{archive}"], "give image files, or --input and --output"),
        (["--output", "{csv}"], "give image files, or --input and --output"),
        (["image.png", "--input", "{archive}", "--output", "{csv}"], "give image files, or --input and --output"),
        ([], "give image files, or --input and --output"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(
    server: Any, archive: Path, tmp_path: Path, arguments: list[str], message: str, predict: Predict
) -> None:
    (tmp_path / "empty").mkdir()
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    places = {"empty": tmp_path / "empty", "archive": archive, "other": other, "csv": tmp_path / "scores.csv"}
    done = predict("--url", server.url, *(argument.format(**places) for argument in arguments))
    assert (done.code, message in " ".join(done.err.split())) == (2, True), done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "scores.csv").exists()
    assert other.read_text() == "a,b\n1,2\n"


def test_server_that_is_gone(archive: Path, tmp_path: Path, score: Predict) -> None:
    gone = SimpleNamespace(url="http://127.0.0.1:9/v1/models/digits:predict")
    done = score(gone, archive, tmp_path / "scores.csv")
    assert (done.code, "does not answer" in done.err) == (1, True)


@pytest.mark.usefixtures("s3_server")
def test_bucket(server: Any, pngs: dict[str, bytes], tmp_path: Path, score: Predict) -> None:
    """In an S3 server."""
    files = open_buckets("s3")
    files.mkdir("archive")
    for label in ("0", "1"):
        files.pipe(f"archive/digits/{label}/a.png", pngs[label])
    output = tmp_path / "scores.csv"
    assert score(server, "s3://archive/digits/", output).out == f"2 images in {output}\n"
    assert list(rows(output)) == ["0/a.png", "1/a.png"]
    none = score(server, "s3://archive/none", output)
    assert (none.code, "input: there is nothing, or no image" in none.err) == (2, True)
