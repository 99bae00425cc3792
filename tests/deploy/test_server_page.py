"""The server's page in a real browser, without a screen."""

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from components.model_card import MODEL_CARD, ONNX_MODEL, Example, ModelCard
from components.preprocessing import model_input
from components.train.export import save_served_graph
from components.train.models import MODELS
from components.train.onnx_export import write_onnx

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
BIRDS = ["blackbird", "house sparrow", "northern goshawk", *(f"bird number {number}" for number in range(9))]


@pytest.fixture(scope="module")
def colour_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of colour images."""
    keras.utils.set_random_seed(1)
    shape = (32, 32, 3)
    model = MODELS["cnn_small"](shape, len(BIRDS))
    folder = tmp_path_factory.mktemp("colour") / "1"
    save_served_graph(model, shape, BIRDS, folder)
    checksum = write_onnx(model, np.zeros((1, *shape), np.uint8), folder / ONNX_MODEL)
    assert checksum
    black = io.BytesIO()
    Image.new("RGB", (32, 32)).save(black, "PNG")
    logits = model(model_input(np.zeros((1, *shape), np.uint8)))[0]
    example = Example(
        label=BIRDS[0],
        png=base64.b64encode(black.getvalue()).decode(),
        logits=logits.numpy().tolist(),
        probabilities=keras.ops.softmax(logits).numpy().tolist(),
    )
    card = ModelCard(
        model_type="cnn_small",
        parameters=model.count_params(),
        image_shape=shape,
        class_names=BIRDS,
        dataset="birds",
        dataset_fingerprint="",
        options={},
        run="",
        git_revision="",
        versions={},
        examples=[example],
        onnx_sha256=checksum,
    )
    (folder / MODEL_CARD).write_text(card.model_dump_json())
    return folder.parent


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(params=[("light", 1000), ("dark", 375)], ids=["light", "dark phone"])
def page(request: pytest.FixtureRequest, browser: Any) -> Iterator[Any]:
    scheme, width = request.param
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    yield page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    context.close()
    assert [problem for problem in problems if "status of 4" not in problem] == []


def file(size: tuple[int, int], kind: str = "PNG", mode: str = "RGB") -> dict[str, Any]:
    content = io.BytesIO()
    Image.effect_noise(size, 50).convert(mode).save(content, kind)
    return {"name": f"image.{kind.lower()}", "mimeType": f"image/{kind.lower()}", "buffer": content.getvalue()}


@pytest.fixture(scope="module")
def digits_server(start_server, trained: SimpleNamespace) -> Any:
    return start_server(trained.model)


def test_a_drawn_digit_is_recognised(page: Any, digits_server: Any) -> None:
    page.goto(digits_server.url)
    box = page.locator("canvas").bounding_box()
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(middle, box["y"] + 0.8 * box["height"], steps=8)
    page.mouse.up()
    page.wait_for_selector("#label:visible")
    assert page.inner_text("#label").startswith("1")
    assert page.locator("#bars dt").count() == 10
    page.click("#clear")
    page.wait_for_selector("#answer", state="hidden")


def test_a_chosen_image_is_classified(page: Any, start_server: Any, colour_model: Path, browser: Any) -> None:
    server = start_server(colour_model)
    page.goto(server.url)
    page.wait_for_selector("h1:text-is('digits')")
    assert page.locator("canvas").is_hidden()
    for chosen in (file((300, 200)), file((300, 200), "JPEG"), file((3000, 10), "WEBP"), file((9, 9), "PNG", "RGBA")):
        page.set_input_files("#file", chosen)
        page.wait_for_selector("#label:visible")
        assert page.inner_text("#label").rsplit(" ", 1)[0] in BIRDS
        assert page.locator("#bars dt").count() == 10
        page.click("#clear")
        page.wait_for_selector("#answer", state="hidden")


def test_problems_are_told(page: Any, digits_server: Any) -> None:
    page.goto(digits_server.url)
    page.wait_for_selector("h1:text-is('digits')")
    page.set_input_files("#file", {"name": "x.txt", "mimeType": "text/plain", "buffer": b"text"})
    page.wait_for_selector("#problem:visible")
    assert "no image that the browser can read" in page.inner_text("#problem")
    page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"text"})
    page.wait_for_selector("#problem:has-text('cannot be decoded')")
    page.set_input_files("#file", file((28, 28)))  # and it is over with the next good one
    page.wait_for_selector("#label:visible")
    assert page.locator("#problem").is_hidden()


def test_a_dropped_image_is_classified(page: Any, digits_server: Any) -> None:
    page.goto(digits_server.url)
    page.wait_for_selector("h1:text-is('digits')")
    page.evaluate(
        """async () => {
            const canvas = document.createElement('canvas');
            canvas.width = canvas.height = 28;
            const blob = await new Promise(done => canvas.toBlob(done));
            const data = new DataTransfer();
            data.items.add(new File([blob], 'x.png', { type: 'image/png' }));
            dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true }));
        }"""
    )
    page.wait_for_selector("#label:visible")
