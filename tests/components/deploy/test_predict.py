"""The command that asks a model server, against a real one."""

import base64
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from kfp_image_classification.components.contracts.model_card import read_model_card


@pytest.fixture(scope="module")
def server(start_server, trained: SimpleNamespace):
    return start_server(trained.model)


@pytest.fixture
def images(trained: SimpleNamespace, tmp_path: Path) -> dict[str, Path]:
    files = {}
    for example in read_model_card(trained.model).examples[:2]:
        files[example.label] = tmp_path / f"{example.label}.png"
        files[example.label].write_bytes(base64.b64decode(example.png))
    (tmp_path / "text.txt").write_text("no image")
    return {**files, "text": tmp_path / "text.txt", "missing": tmp_path / "missing.png"}


@pytest.mark.parametrize("path", ["", "/", "/v1/models/digits:predict"])
def test_images_are_classified(
    server, images: dict[str, Path], path: str, predict: Callable[..., SimpleNamespace]
) -> None:
    done = predict("--url", server.url + path, "--top=3", images["0"], images["1"])
    assert done.code == 0, done.err
    assert f"{images['0'].name}: 0" in done.out.replace("\n", "")
    assert f"{images['1'].name}: 1" in done.out.replace("\n", "")
    assert done.out.count("%") == 6


def test_names_are_shown_as_they_are(
    server, images: dict[str, Path], tmp_path: Path, predict: Callable[..., SimpleNamespace]
) -> None:
    odd = images["0"].rename(tmp_path / "[red]a :smile: [bold].png")
    assert f"{odd.name}: 0" in predict("--url", server.url, odd).out.replace("\n", "")


@pytest.mark.parametrize("columns", [10, 20, 30, 45, 60, 100])
def test_any_width_of_terminal_shows_paths_names_and_shares_whole(
    server,
    images: dict[str, Path],
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    predict: Callable[..., SimpleNamespace],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    done = predict("--url", server.url, "--top=10", images["0"])
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == f"{images['0']}: 0"
    assert max(map(len, lines[1:])) <= max(columns, 20)
    shares = [float(share) for share in re.findall(r"(\d+\.\d\d)%", done.out)]
    assert len(shares) == 10
    assert sum(shares) == pytest.approx(100, abs=0.1)
    assert "…" not in done.out


@pytest.mark.parametrize(
    ("url", "image", "options", "code", "message"),
    [
        ("", "text", [], 1, "answers 400: image 0: cannot be decoded"),
        ("", "missing", [], 2, "missing.png: No such file"),
        ("", "0", ["--name=other"], 1, "answers 404: there is no /v1/models/other:predict"),
        ("http://127.0.0.1:9", "0", [], 1, "http://127.0.0.1:9 does not answer"),
        ("127.0.0.1:9", "0", [], 2, "expected http://HOST:PORT"),
    ],
)
def test_errors_are_told_in_words(
    server,
    images: dict[str, Path],
    url: str,
    image: str,
    options: list[str],
    code: int,
    message: str,
    predict: Callable[..., SimpleNamespace],
) -> None:
    done = predict("--url", url or server.url, *options, images[image])
    assert (done.code, message in done.err) == (code, True), done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--top=0", "x.png"], "--top 0: expected a number from 1"),
        (["--top=5", "--input=in", "--output=out.csv"], "--top goes with image files; of --input, the first class is"),
        (["--output=out.csv", "x.png"], "give image files, or --input and --output"),
        (["--url=http://x/v1/models/m:predict", "--name=m", "x.png"], "--name goes with the base URL of a server"),
    ],
)
def test_options_that_do_not_go_are_told(
    options: list[str], told: str, predict: Callable[..., SimpleNamespace]
) -> None:
    done = predict("--url=http://127.0.0.1:9", *options)
    assert (done.code, told in done.err) == (2, True), done.err
