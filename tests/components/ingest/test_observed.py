"""What ingest notes of a data set's images, and keeps in the manifest."""

import io
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from cases.odd_images import IMAGES, exif, with_exif
from PIL import Image

from kfp_image_classification.components.contracts.data_report import BINS, DataReport
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.contracts.pixel_sums import PixelSums
from kfp_image_classification.components.ingest.image_header import image_header
from kfp_image_classification.components.ingest.notable import not_used, notable
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.preview import preview_page
from kfp_image_classification.components.ingest.sharding import write_dataset
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.step.stage_log import stage_log


def png(*colour: int, size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def written(root: Path, files: dict[str, bytes]) -> DataReport:
    for name, content in files.items():
        (root / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "in" / name).write_bytes(content)
    options = IngestOptions(
        dataset=f"image_folder:{root / 'in'}", validation_share=0.2, workers=1, seed=0, image_size=8
    )
    write_dataset(open_source(options), options, root / "out", stage_log("test"))
    report = Dataset(root / "out").manifest.report
    assert report
    return report


def test_headers_are_read_as_pillow_reads_them() -> None:
    for name in IMAGES.keys() - {"much_text.png", "bad_text_checksum.png"}:  # which Pillow alone does not open
        content = IMAGES[name]
        with Image.open(io.BytesIO(content)) as image:
            kind = "PNG" if image.format == "PNG" else "JPEG"
            assert image_header(content) == (kind, *image.size, image.getexif().get(0x0112, 1)), name


@pytest.mark.parametrize("name", ["rgb.jpg", "rgb.png"])
def test_exif_is_read_in_every_form_and_never_trusted(name: str) -> None:
    def orientation(content: bytes) -> int:
        header = image_header(with_exif(IMAGES[name], content))
        assert header[1:3] == (32, 40)
        return header.orientation

    for order, kind in product("<>", "HI"):
        told = [orientation(exif(number, order, kind)) for number in range(10)]
        assert told == [1, 1, 2, 3, 4, 5, 6, 7, 8, 1], (order, kind)
    whole = exif(6)
    text = whole[:12] + b"\x02" + whole[13:]
    for broken in (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", whole[:17], whole[:10] + b"\xff" * 30, b"x" * 60, text):
        assert orientation(broken) == 1
    twice = with_exif(with_exif(IMAGES[name], exif(3)), exif(6))
    assert image_header(twice).orientation == 6, "the first one, as Pillow has it"


def test_copies_within_and_between_splits_are_counted_and_named(tmp_path: Path) -> None:
    files = {f"train/{c}/{i}.png": png(i, 9, 100 * (c == "b")) for c in "ab" for i in range(10)}
    files |= {f"val/{c}/{i}.png": png(i, 8, 100 * (c == "b")) for c in "ab" for i in range(2)}
    files |= {f"test/{c}/{i}.png": png(i, 7, 100 * (c == "b")) for c in "ab" for i in range(3)}
    files["train/a/copy.png"] = files["train/a/3.png"]
    files["train/a/again.png"] = files["train/a/3.png"]
    files["test/b/known.png"] = files["train/b/1.png"]
    files["test/b/selected.png"] = files["val/b/1.png"]
    files["test/a/contradicts.png"] = files["test/b/0.png"]
    report = written(tmp_path, files)
    assert {name: split.copies for name, split in report.splits.items()} == {"train": 2, "validation": 0, "test": 1}
    assert [(pair.first, pair.second, pair.images) for pair in report.shared] == [
        ("train", "test", 1),
        ("validation", "test", 1),
    ]
    assert report.contradictions == 2
    named = [
        (Path(copy.first).name, copy.first_split, Path(copy.second).name, copy.second_split) for copy in report.copies
    ]
    assert {frozenset(pair) for pair in named[:2]} == {
        frozenset(("1.png", "train", "known.png", "test")),
        frozenset(("1.png", "validation", "selected.png", "test")),
    }
    assert {named[2][0], named[2][2]} == {"0.png", "contradicts.png"}
    assert len(named) == 5
    manifest = Dataset(tmp_path / "out").manifest
    assert notable(manifest) == [
        "1 test image was seen in training: the same file is in train, and the test tells less than it seems to",
        "1 test image was seen in the selection of the model: the same file is in validation, and the test tells less "
        "than it seems to",
        "2 images are there in several classes, as the same files",
        "2 training images are there more than once, as the same files",
        "1 test image is there more than once, as the same file",
    ]
    page = preview_page(tmp_path / "out")
    assert "1 test image was seen in training: the same file" in page
    assert f"<td>{tmp_path}/in/test/b/known.png</td>" in page


def test_what_may_make_a_model_worse_than_it_looks_is_told(tmp_path: Path) -> None:
    files = {f"{c}/{i}.png": png(i, 9, 100 * (c == "b")) for c, count in (("a", 40), ("b", 2)) for i in range(count)}
    files |= {"a/lying.jpg": IMAGES["lying.jpg"], "a/notes.txt": b"x", ".hidden": b""}
    written(tmp_path, files)
    manifest = Dataset(tmp_path / "out").manifest
    assert not_used(manifest) == ["not used: hidden files and folders: 1", "not used: files that end in .txt: 1"]
    unequal, *missing, turned = notable(manifest)
    assert unequal == (
        "the class 'a' has 26 times the training images of 'b': accuracy will tell little about the small classes"
    )
    assert missing == ["no validation image shows 'b'"]
    assert turned.startswith("1 image carries a note (EXIF) of how the camera was held; it is applied neither")


def test_classes_that_look_alike_are_told(tmp_path: Path) -> None:
    names = ["cat", "Cat", "cat ", "caf\u00e9", "cafe\u0301", "dog"]
    written(tmp_path, {f"{c}/{i}.png": png(i, n, 9) for n, c in enumerate(names) for i in range(10)})
    told = [sentence for sentence in notable(Dataset(tmp_path / "out").manifest) if "differ" in sentence]
    differ = "differ in case, spaces or the form of letters alone, and are"
    advice = "give them one name, if they are one"
    assert told == [
        f"'Cat', 'cat', 'cat ' {differ} 3 classes: {advice}",
        rf"'cafe\u0301', 'caf\xe9' {differ} 2 classes: {advice}",
    ]


def test_sizes_encodings_and_turned_images_are_counted(tmp_path: Path) -> None:
    files = {f"train/{c}/{i}.png": png(i, 9, 100 * (c == "b"), size=(10 + i, 5)) for c in "ab" for i in range(20)}
    files |= {f"test/{c}/1.jpg": IMAGES["lying.jpg" if c == "a" else "rgb.jpg"] for c in "ab"}
    report = written(tmp_path, files)
    train, test = report.splits["train"], report.splits["test"]
    assert (train.encodings, test.encodings) == ({"PNG": 32}, {"JPEG": 2})
    assert (train.turned, test.turned) == (0, 1)
    assert (test.smallest, test.largest, test.other_sizes) == ((32, 40), (32, 40), 0)
    assert sum(size.images for size in train.sizes) + train.other_sizes == 32
    assert train.smallest[1] == train.largest[1] == 5


def test_pixels_are_measured_the_same_in_any_order_and_parts() -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 6, 5, 3), np.uint8)
    whole, first, second = PixelSums(3), PixelSums(3), PixelSums(3)
    for index, image in enumerate(images):
        whole.measure(image)
        (first if index % 3 else second).measure(image)
    second.add(first)
    report = whole.report()
    assert second.report() == report
    assert np.allclose(report.mean, images.mean((0, 1, 2)), atol=1e-4)
    assert np.allclose(report.spread, images.std((0, 1, 2)), atol=1e-4)
    assert len(report.brightness) == len(report.contrast) == BINS
    brightness, _ = np.histogram(images.mean((1, 2, 3)), BINS, (0, 256))
    assert (report.brightness, sum(report.contrast)) == (brightness.tolist(), 30)
