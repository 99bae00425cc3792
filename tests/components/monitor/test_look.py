"""A look at a payload log that lies on a disk, beside the digits as ingest wrote them."""

import base64
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from evaluations import evaluation_of
from PIL import Image

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.contracts.evaluation import (
    ANSWER,
    NO_CHAMPION_FILE,
    NoChampion,
    answers_written,
)
from kfp_image_classification.components.contracts.folders import open_folder
from kfp_image_classification.components.contracts.payload_events import PayloadEvent
from kfp_image_classification.components.contracts.payload_files import to_lines, to_parquet
from kfp_image_classification.components.contracts.records import read_batches
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.monitor.feedback import read_labels
from kfp_image_classification.components.monitor.look import Look, look
from kfp_image_classification.components.monitor.options import MonitorOptions
from kfp_image_classification.components.step.errors import InvalidInput, checked

IMAGES = 400
Changed = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def asked(digits: Dataset) -> tuple[np.ndarray, list[str]]:
    """Images that the model has not seen, and their classes."""
    pixels, labels = next(iter(read_batches(digits, digits.manifest.splits["test"].shards, IMAGES)))
    return np.asarray(pixels), [digits.manifest.class_names[label] for label in np.asarray(labels)]


@pytest.fixture(scope="module")
def evaluation(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that is always right, and sure of it."""
    folder = tmp_path_factory.mktemp("evaluation")
    answers = np.zeros(IMAGES, ANSWER)
    counts = np.array(digits.manifest.splits["validation"].class_counts)
    answers["label"] = answers["predicted"] = np.repeat(np.arange(10), -(-IMAGES * counts // counts.sum()))[:IMAGES]
    answers["confidence"] = np.linspace(0.9, 1, IMAGES)
    evaluation_of("cnn", answers, 10, 1.0, class_names=digits.manifest.class_names).write(folder)
    with answers_written(folder, "validation", IMAGES) as write:
        write(answers)
    return folder


def png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1)).save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def write_log(
    folder: Path,
    pixels: np.ndarray,
    labels: list[str],
    confidence: np.ndarray,
    hours_ago: float = 1,
    service: str = "digits",
) -> None:
    """An event each for two images at a time, in two files, one of each format."""
    time = datetime.now(UTC) - timedelta(hours=hours_ago)
    events = []
    for start in range(0, len(pixels), 2):
        request = {"instances": [{"b64": png(one)} for one in pixels[start : start + 2]]}
        answer = {
            "predictions": [
                {"label": label, "probabilities": [float(sure), 0.0]}
                for label, sure in zip(labels[start : start + 2], confidence[start : start + 2], strict=True)
            ]
        }
        for kind, body in (("request", request), ("response", answer)):
            events.append(PayloadEvent(f"r-{start // 2}", kind, time, service, json.dumps(body).encode()))  # type: ignore[arg-type]
    storage = open_folder(str(folder), "events")
    storage.write("a.jsonl.gz", to_lines(events[: len(events) // 2]))
    storage.write("b.parquet", to_parquet(events[len(events) // 2 :]))


def looked(digits: Dataset, evaluation: Path, folder: Path, **options: object) -> Look:
    return look(digits.directory, evaluation, checked(MonitorOptions, events=str(folder), **options))


SURE = np.linspace(0.9, 1, IMAGES)


@pytest.mark.parametrize(
    ("changed", "confidence", "drifted"),
    [
        (lambda images: images, SURE, []),
        (lambda images: images // 3, SURE, ["brightness", "contrast"]),
        (lambda images: np.rot90(images, axes=(1, 2)), SURE * 0.7, ["confidence"]),
    ],
    ids=["as-in-training", "darker", "rotated"],
)
def test_drift_is_found_in_pixels_and_answers(
    digits: Dataset, evaluation: Path, asked, tmp_path: Path, changed: Changed, confidence: np.ndarray, drifted: list
) -> None:
    images, labels = asked
    write_log(tmp_path, changed(images), labels, confidence)
    found = looked(digits, evaluation, tmp_path)
    for name in drifted:
        assert name in found.words, found.words
    assert found.words.startswith("drift" if drifted else "no drift")
    assert found.retrain is bool(drifted)
    assert found.metrics["requests"] == IMAGES / 2
    assert found.words.split(" (")[0].split(";")[0].split(",")[0].capitalize() in found.page


def test_nothing_is_said_from_too_little_data(digits: Dataset, evaluation: Path, asked, tmp_path: Path) -> None:
    images, labels = asked
    write_log(tmp_path, 255 - images[:40], labels[:40], SURE[:40])
    found = looked(digits, evaluation, tmp_path)
    assert found.words.startswith("nothing can be said: 40 images, and it takes ")
    assert not found.retrain
    assert "classifier_drifted" not in found.prometheus
    assert looked(digits, evaluation, tmp_path / "not-there").words.startswith("nothing can be said: 0 images")
    assert looked(digits, evaluation, tmp_path, retrain_on="always").retrain


def test_only_what_counts_is_read(digits: Dataset, evaluation: Path, asked, tmp_path: Path) -> None:
    images, labels = asked
    write_log(tmp_path / "old", 255 - images, labels, SURE, hours_ago=30)
    write_log(tmp_path / "other", 255 - images, labels, SURE, service="other")
    write_log(tmp_path / "now", images, labels, SURE)
    storage = open_folder(str(tmp_path), "events")
    storage.write("damaged.jsonl.gz", b"\x1f\x8b")
    body = b'{"instances": [{"b64": "AAAA"}]}'
    storage.write("odd.jsonl.gz", to_lines([PayloadEvent("o", "request", datetime.now(UTC), "digits", body)]))
    found = looked(digits, evaluation, tmp_path, service_name="digits")
    assert found.words == "no drift; does not train anew"
    assert found.metrics["requests"] == IMAGES / 2 + 1
    assert "files that hold no whole events" in found.page
    assert "images that cannot be decoded" in found.page
    few = looked(digits, evaluation, tmp_path, service_name="digits", most_images=10)
    assert few.words.startswith("nothing can be said: 1")


def test_requests_that_the_server_refused_change_nothing(
    digits: Dataset, evaluation: Path, asked, tmp_path: Path
) -> None:
    """They are in the log like any other: the log is written before they are read."""
    images, labels = asked
    write_log(tmp_path, images, labels, SURE)
    one = images[0].tolist()
    refused = [
        (images[:50] / 255.0).tolist(),  # scaled
        (images[:50].astype(int) - 255).tolist(),
        [[[[None]] * 28] * 28] * 50,
        [[[["1"]] * 28] * 28] * 50,
        [[[[[]]] * 28] * 28] * 50,
        ["text", 5, [], [[1], [2, 3]]],
        [{"pixels": one[:5]}, {"b64": "aGk="}],
    ]
    bodies = [json.dumps({"instances": instances}).encode() for instances in refused] + [b"[" * 100_000, b"\xff", b""]
    events = [PayloadEvent(f"x-{at}", "request", datetime.now(UTC), "digits", body) for at, body in enumerate(bodies)]
    open_folder(str(tmp_path), "events").write("refused.jsonl.gz", to_lines(events))
    feedback = tmp_path / "feedback.csv"
    feedback.write_text("id,label\n" + "".join(f"x-{at},3\n" for at in range(len(bodies))))
    found = looked(
        digits, evaluation, tmp_path, feedback=str(feedback), labelled_dir=str(tmp_path / "new"), dataset="mnist_5k"
    )
    assert found.words == "no drift; does not train anew"
    assert found.metrics["requests"] == IMAGES / 2 + len(bodies)
    assert (found.metrics["new_images"], found.dataset) == (0, "mnist_5k")


def test_events_of_a_clock_that_was_wrong_do_not_count(
    digits: Dataset, evaluation: Path, asked, tmp_path: Path
) -> None:
    images, labels = asked
    write_log(tmp_path / "now", images, labels, SURE)
    write_log(tmp_path / "then", 255 - images, labels, SURE, hours_ago=-24 * 365)
    found = looked(digits, evaluation, tmp_path)
    assert found.words == "no drift; does not train anew"
    assert "events of a time that has not come" in found.page


def test_labels_that_are_no_class_are_told(digits: Dataset, evaluation: Path, tmp_path: Path) -> None:
    (tmp_path / "feedback.csv").write_text("id,label\na,3\nb,three\nc, 3 \n")
    (told,) = looked(digits, evaluation, tmp_path / "log", feedback=str(tmp_path / "feedback.csv")).warnings
    assert told.startswith("feedback: 'three': no class of the data set")


def test_without_a_measured_model_pixels_are_compared(digits: Dataset, asked, tmp_path: Path) -> None:
    images, labels = asked
    write_log(tmp_path / "log", 255 - images, labels, SURE)
    (tmp_path / "evaluation").mkdir()
    NoChampion(reason="its files are gone").write(tmp_path / "evaluation" / NO_CHAMPION_FILE)
    assert looked(digits, tmp_path / "evaluation", tmp_path / "log").words.startswith("drift: brightness")


def test_labels_that_come_later(digits: Dataset, evaluation: Path, asked, tmp_path: Path) -> None:
    """They give live accuracy, and a data set that ingest reads, which goes on from the one before."""
    images, labels = asked
    wrong = [("0" if label != "0" else "1") if at < 40 else label for at, label in enumerate(labels)]
    write_log(tmp_path / "log", images, wrong, SURE)
    lines = [f"r-{at // 2},{at % 2},{label}" for at, label in enumerate(labels)]
    feedback = tmp_path / "labels.csv"
    feedback.write_text("\n".join(["id,image,label", *lines, "unknown,0,3", "r-0,9,3", "r-1,,"]))
    base = tmp_path / "base" / "list.csv"
    (base.parent / "images").mkdir(parents=True)
    Image.fromarray(images[0].squeeze(-1)).save(base.parent / "images" / "old.png")
    base.write_text(f"image,label\nimages/old.png,{labels[0]}\n")
    options = {"feedback": str(feedback), "labelled_dir": str(tmp_path / "data"), "dataset": f"image_list:{base}"}
    found = looked(digits, evaluation, tmp_path / "log", **options)
    assert found.metrics["live_accuracy"] == (IMAGES - 40) / IMAGES
    assert found.metrics["labels"] == IMAGES
    assert "live accuracy" in found.page
    source = open_source(IngestOptions(dataset=found.dataset, validation_share=0.1, workers=1, seed=0))
    assert len(source.splits["train"]) == IMAGES + 1
    assert source.class_names == digits.manifest.class_names
    assert looked(digits, evaluation, tmp_path / "log", **options).dataset == found.dataset
    assert not found.retrain
    by_data = {**options, "retrain_on": "new_data", "min_new_images": IMAGES + 5}
    assert not looked(digits, evaluation, tmp_path / "log", **by_data, new_images=4).retrain
    enough = looked(digits, evaluation, tmp_path / "log", **by_data, new_images=5, known_images=5000)
    assert enough.retrain
    assert enough.words.endswith("trains anew, as 405 images are new, 400 of them labelled requests; 405 are enough")
    assert "the model was trained on 5,000" in enough.page
    # What is in the list that the look goes on from is not new, and without a folder no label becomes data.
    again = {**options, "dataset": found.dataset}
    assert looked(digits, evaluation, tmp_path / "log", **again).metrics["new_images"] == 0
    assert looked(digits, evaluation, tmp_path / "log", **{**options, "labelled_dir": ""}).metrics["new_images"] == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "begin with a line id,label"),
        ("request,class\n1,2\n", "its first line is 'request,class'"),
        ("id,label\n,3\n", "line 2: give the request's id"),
        ("id,image,label\na,x,3\n", "line 2: give the request's id, and as image a number"),
        ("id,label\na,3\na,4\n", "line 3: 'a' is '4', and before '3'"),
        ('id,label\na,3\n"b,4\nc,5\n', "line 3: unexpected end of data; mind the quotes in it"),
        ('"id,label\na,3\n', "line 1: unexpected end of data"),
        ("id,label\na," + "3" * 200_000, "field larger than field limit"),
        (None, "cannot be read: No such file"),
    ],
)
def test_unusable_labels_are_told_by_line(content: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidInput) as told:
        read_labels(str(path))
    assert f"feedback = {str(path)!r}" in str(told.value)
    assert words in str(told.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"events": ""}, "events = ''"),
        ({"hours": 0}, "hours = 0"),
        ({"hours": 1e308}, "hours = 1e\\+308"),
        ({"threshold": -1}, "threshold = -1"),
        ({"retrain_on": "never"}, "retrain_on = 'never'"),
        ({"push_to": "gateway"}, "push_to = 'gateway'"),
    ],
)
def test_options_are_refused_by_name(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        checked(MonitorOptions, **{"events": "log", **options})
