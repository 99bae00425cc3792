"""The server's page in a real browser, without a screen."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from playwright import sync_api
from skips import CHROMIUM, needs_tool, tool

pytestmark = needs_tool(*CHROMIUM)
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=tool(*CHROMIUM), args=FLAGS)
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
        classes = page.locator("#bars dt").all_inner_texts()
        assert page.inner_text("#label").rsplit(" ", 1)[0] == classes[0]
        assert len(classes) == 10
        page.click("#clear")
        page.wait_for_selector("#answer", state="hidden")


def test_a_photograph_is_sent_and_shown_as_it_is_stored_whatever_its_size(
    page: Any, start_server: Any, colour_model: Path
) -> None:
    """What EXIF says of how the camera was held is for nobody here, so it must not be for the browser either."""
    lying = Image.Exif()
    lying[0x0112] = 6
    server = start_server(colour_model)
    page.goto(server.url)
    page.wait_for_selector("h1:text-is('digits')")
    for size in ((300, 200), (3000, 2000)):  # as it is, and more than the page sends
        content = io.BytesIO()
        Image.effect_noise(size, 90).convert("RGB").save(content, "JPEG", quality=97, exif=lying.tobytes())
        with page.expect_request("**:predict") as asked:
            chosen = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": content.getvalue()}
            page.set_input_files("#file", chosen)
        sent = base64.b64decode(json.loads(asked.value.post_data)["instances"][0]["b64"])
        with Image.open(io.BytesIO(sent)) as image:
            assert image.width > image.height
        page.wait_for_selector("#label:visible")
        shown = page.evaluate("getComputedStyle(document.getElementById('photo')).imageOrientation")
        assert shown == "none"
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
