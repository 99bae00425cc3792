"""Lists of labelled images, as people write them and as labelling tools export them."""

import json
from collections import Counter
from pathlib import Path

import pytest
from cases.odd_images import IMAGES

from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.recipe import recipe
from kfp_image_classification.components.ingest.sources.listed_images import listed_images
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.step.errors import InvalidInput, checked

USE = "aiplatform.googleapis.com/ml_use"


def vertex(image: str, label: str, use: str | None = None) -> str:
    return json.dumps(
        {
            "imageGcsUri": image,
            "classificationAnnotation": {"displayName": label, "annotationResourceLabels": {"x": "y"}},
            "dataItemResourceLabels": {USE: use} if use else {},
        }
    )


def sagemaker(image: str, label: str) -> str:
    return json.dumps({"source-ref": image, "animals": 0, "animals-metadata": {"class-name": label, "job-name": "x"}})


CAT, DOG = ("a/cat 1.jpg", "cat", "train"), ("b/dog.png", "dog", "validation")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,label,split\na/cat 1.jpg,cat,train\nb/dog.png,dog,val\n", [CAT, DOG]),
        ("\ufefflabel;PATH;Set\ncat;a/cat 1.jpg;TRAINING\r\ndog;b/dog.png;dev\r\n", [CAT, DOG]),
        ("file_name\tclass\na/cat 1.jpg\tcat\n\nb/dog.png\tdog\n", [CAT, (*DOG[:2], "train")]),
        ('"image","label"\n"a, b.jpg","x ""y"""\n', [("a, b.jpg", 'x "y"', "train")]),
        ("gs://x/1.jpg,cat\ngs://x/2.jpg,dog\n", [("gs://x/1.jpg", "cat", "train"), ("gs://x/2.jpg", "dog", "train")]),
        (
            "training,gs://x/1.jpg,cat\nvalidation,gs://x/2,dog\nUNASSIGNED,gs://x/3,cat\nTEST,gs://x/4.png,cat\n",
            [
                ("gs://x/1.jpg", "cat", "train"),
                ("gs://x/2", "dog", "validation"),
                ("gs://x/3", "cat", "train"),
                ("gs://x/4.png", "cat", "test"),
            ],
        ),
        (
            '{"image": "a/cat 1.jpg", "label": "cat"}\n\n{"path": "b/dog.png", "class": "dog", "split": "valid"}',
            [CAT, DOG],
        ),
        ('{"image": "1.png", "label": 7}', [("1.png", "7", "train")]),
        ('image,label,remark\r1\u2028.png,a,"two\rlines"\r', [("1\u2028.png", "a", "train")]),
        (
            vertex("gs://x/1.jpg", "cat", "training") + "\n" + vertex("gs://x/2.jpg", "dog", "test"),
            [("gs://x/1.jpg", "cat", "train"), ("gs://x/2.jpg", "dog", "test")],
        ),
        (vertex("gs://x/1.jpg", "cat"), [("gs://x/1.jpg", "cat", "train")]),
        (sagemaker("s3://x/1.jpg", "cat"), [("s3://x/1.jpg", "cat", "train")]),
        ('"image", "label"\n"a, b.jpg", "c, d"\n', [("a, b.jpg", "c, d", "train")]),
        ("image,label\n1.png,a,,\n", [("1.png", "a", "train")]),
        ('image,label\n5" disk.png,"two\r\nlines"\n', [('5" disk.png', "two\nlines", "train")]),
        (
            "gs://x/1.jpg,cat\ntest,gs://x/2.jpg,cat\ngs://x/3.jpg,dog,\n",
            [("gs://x/1.jpg", "cat", "train"), ("gs://x/2.jpg", "cat", "test"), ("gs://x/3.jpg", "dog", "train")],
        ),
    ],
    ids=[
        "csv",
        "other words",
        "tabs",
        "quoted",
        "vertex csv",
        "vertex csv with use",
        "json",
        "number",
        "old line ends",
        "vertex json",
        "vertex json without use",
        "sagemaker",
        "space before quotes",
        "empty values more",
        "quotes and lines within",
        "use now and then",
    ],
)
def test_forms_of_lists(text: str, expected: list[tuple[str, str, str]]) -> None:
    found = listed_images(text)
    assert [(image.image, image.label, image.split) for image in found.images] == expected
    assert (found.problems, found.skipped) == ([], {})


def write(folder: Path, text: str, name: str = "list.csv") -> IngestOptions:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    for image in ("1.png", "2.png", "deep/3.png", "deep/er/4.jpeg"):
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        (folder / image).write_bytes(IMAGES["one_pixel.png"] + image.encode())
    return IngestOptions(dataset=f"image_list:{folder / name}", validation_share=0.2, workers=1, seed=0)


def test_paths_are_relative_to_the_list_or_absolute(tmp_path: Path) -> None:
    rows = (
        f"1.png,a,train\n./deep/3.png,b,train\n{tmp_path}/in/2.png,a,test\nfile://{tmp_path}/in/deep/er/4.jpeg,b,test\n"
    )
    source = open_source(write(tmp_path / "in", "image,label,split\n" + rows))
    assert source.class_names == ["a", "b"]
    contents = {
        split: Counter(zip(examples.read(0, 9), examples.labels().tolist(), strict=True))
        for split, examples in source.splits.items()
    }
    image = IMAGES["one_pixel.png"]
    assert contents == {
        "train": {(image + b"1.png", 0): 1, (image + b"deep/3.png", 1): 1},
        "test": {(image + b"2.png", 0): 1, (image + b"deep/er/4.jpeg", 1): 1},
    }


def test_what_is_not_used_is_counted_and_all_problems_are_told_by_line(tmp_path: Path) -> None:
    rows = ["1.png,a,", "1.png,a,train", "2.png,,", "deep/3.png,b,holdout", ",b,", "9.png,b,", "1.png,b,", "5/6.png,b,"]
    asked = write(tmp_path, "image,label,split\n" + "\n".join(rows))
    with pytest.raises(InvalidInput) as error:
        open_source(asked)
    told = [problem.removeprefix(f"dataset = {asked.dataset!r}: ") for problem in error.value.problems]
    assert [problem.split(";")[0] for problem in told] == [
        "line 5: the split 'holdout' is not known",
        "line 6: there is no image",
        "line 8: 1.png is 'b' in train, and in line 2 'a' in train",
        f"line 7: {tmp_path}/9.png is not there",
        f"line 9: {tmp_path}/5/6.png: {tmp_path}/5 cannot be listed: No such file or directory",
    ]
    source = open_source(write(tmp_path, "image,label\n1.png,a\n2.png,b\n1.png,a\ndeep/3.png,\n"))
    assert source.skipped == {"lines that repeat another": 1, "lines without a label": 1}


def test_an_image_that_is_called_in_several_ways_is_one_image(tmp_path: Path) -> None:
    rows = "image,label,split\n1.png,a,train\n2.png,b,train\n"
    others = ["./1.png", "deep/../1.png", f"{tmp_path}/1.png", f"file://{tmp_path}/deep/../1.png"]
    same = open_source(write(tmp_path, rows + "".join(f"{other},a,train\n" for other in others)))
    assert (len(same.splits["train"]), same.skipped) == (2, {"lines that repeat another": 4})
    lines = [f"{other},{'b,train' if index % 2 else 'a,test'}\n" for index, other in enumerate(others)]
    with pytest.raises(InvalidInput) as error:
        open_source(write(tmp_path, rows + "".join(lines)))
    assert len(error.value.problems) == 4
    for index, (other, told) in enumerate(zip(others, error.value.problems, strict=True)):
        assert f"line {index + 4}: {other} is " in told
        assert "and in line 2 'a' in train" in told


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no list of images: it is empty"),
        ("picture,kind\nx,a\n", "is no list of images: it has no column image and none label, its first line is"),
        ("image,kind\nx,a\n", "it has no column label, its first line is 'image,kind'; begin with a line image,label"),
        ("image,label\n", "names no labelled image to train on"),
        ("image,label\n1.png,a\n2.png,a\n", "there is one class alone, 'a'"),
        ("image,label,split\n1.png,a,train\n2.png,b,train\ndeep/3.png,c,test\n", "the test split has images of 'c'"),
        ('{"image": "1.png", "label": ["a", "b"]}\n', 'line 1: the label is ["a", "b"]; give one text or number'),
        ('{"image": "1.png", "label": "a"}\n[1]\n', "line 2: it is no JSON object: '[1]'; mend or remove it"),
        ("image,label\n1.png,a\n2.png,Canis lupus, grey\n", "line 3: it has 3 values, and the first line 2"),
        ("gs://x/1.jpg,cat,dog\n", "line 1: gs://x/1.jpg has several labels; an image has one"),
        ('image,label\n1.png,a\n"2.png,b\ndeep/3.png,c\n', "line 3: unexpected end of data; mind the quotes in it"),
        ('image,label\n"1.png"x,a\n', "line 2: "),
        ("image,label\n1.png," + "x" * 200_000, "line 2: field larger than field limit"),
        ("image,label\n\0/1.png,a\n2.png,b\0\n", r"line 2: '\x00/1.png', 'a': a zero byte or half a sign is no text"),
        (r'{"image": "1.png", "label": "\ud800"}', r"line 1: '1.png', '\ud800': a zero byte or half a sign is no text"),
        ('[{"image": "1.png", "label": "a"}]', "it is one JSON array; write an object a line"),
        ("image,label,Label\n1.png,a,b\n", "its first line has several columns label; keep one"),
        ("image,label\ndeep\\3.png,a\n2.png,b\n", "is not there; write / between folders"),
        ('{"image": "1.png", "label": NaN}', "names no labelled image to train on"),
        ("image,label\ns3://,a\ns3://bucket,b\n", "line 3: s3://bucket names no image; give BUCKET/IMAGE"),
        ("image,label\nhttp://x/1.png,a\n", "line 2: http://x/1.png: http://x: http:// is not known here; give a path"),
    ],
)
def test_what_is_no_list_is_refused_in_words(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as error:
        open_source(write(tmp_path, text))
    assert all(told.startswith(f"dataset = 'image_list:{tmp_path}/list.csv': ") for told in error.value.problems)
    assert problem in str(error.value)


@pytest.mark.parametrize("dataset", ["image_list:", "image_folder:", "image_list: ", "image_folder:file://"])
def test_a_path_is_needed(dataset: str) -> None:
    """It would be the folder that somebody happens to be in."""
    with pytest.raises(InvalidInput, match=r"dataset = 'image_.*': give a path or a URL after image_"):
        checked(IngestOptions, dataset=dataset, validation_share=0.2, workers=1, seed=0)


def test_a_list_that_is_not_there_or_not_utf_8_is_told(tmp_path: Path) -> None:
    asked = write(tmp_path, "")
    (tmp_path / "list.csv").write_bytes(b"image,label\n\xff.png,a\n")
    with pytest.raises(InvalidInput, match=r"list.csv is not UTF-8; save it as UTF-8"):
        open_source(asked)
    (tmp_path / "list.csv").unlink()
    with pytest.raises(InvalidInput, match=r"list.csv cannot be read: No such file or directory"):
        open_source(asked)


def test_a_change_of_the_list_or_an_image_is_seen(tmp_path: Path) -> None:
    asked = write(tmp_path, "image,label\n1.png,a\n2.png,b\n")
    keys = [recipe(asked), recipe(asked)]
    (tmp_path / "1.png").write_bytes(b"another")
    keys.append(recipe(asked))
    (tmp_path / "list.csv").write_text("image,label\n1.png,b\n2.png,b\n")
    keys.append(recipe(asked))
    assert keys[0] == keys[1]
    assert len({*keys}) == 3
