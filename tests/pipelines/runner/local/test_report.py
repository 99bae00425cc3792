"""The report of real runs as people open it: from a file, without a network, in both themes and on a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from playwright import sync_api
from skips import CHROMIUM, tool

from kfp_image_classification.components.report.html_report import section_of
from kfp_image_classification.pipelines.runner.local.run_record import RunRecord

FROM_STEPS = [
    "Models",
    "Learning curves",
    "Confusion matrix, {best}",
    "Most confidently wrong, {best}",
    "Classes, {best}",
    "Training images",
    "Training images of each class",
    "Splits",
]
ALWAYS = ["Pipeline", "Parameters and versions", "More"]
DEPLOYED = ["Serve and ask the model", "Answer time"]


@pytest.fixture(params=["served", "cached", "failed"])
def run(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = tool(*CHROMIUM)
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def headings(report: Path, record: RunRecord) -> list[str]:
    text = report.read_text()
    best = record.ranking.best.name if record.ranking else ""
    wanted = [heading.format(best=best) for heading in [*FROM_STEPS, *ALWAYS, *DEPLOYED]]
    return [heading for heading in wanted if section_of(text, heading)]


def test_report_has_everything_that_the_run_came_to(run: SimpleNamespace) -> None:
    record = RunRecord.read(run.run)
    found = headings(run.run / "report.html", record)
    wanted = [*FROM_STEPS, *ALWAYS] if record.ranking else ALWAYS
    wanted = [*wanted, *DEPLOYED] if record.endpoint else wanted
    best = record.ranking.best.name if record.ranking else ""
    assert found == [heading.format(best=best) for heading in wanted]


def test_report_is_what_the_summary_names_first(served: SimpleNamespace) -> None:
    summary = served.shown[served.shown.index("report  ") :]
    assert summary.startswith(f"report  runs/{served.run.name}/report.html")
    assert served.shown.index("report  ") < served.shown.index("Models")


def test_run_from_the_cache_shows_the_same(served: SimpleNamespace, cached: SimpleNamespace) -> None:
    states = {step.title: step.state for step in RunRecord.read(cached.run).steps}
    assert states == {
        "ingest": "cached",
        "train cnn": "cached",
        "evaluate cnn": "cached",
        "train cnn_dropout": "cached",
        "evaluate cnn_dropout": "cached",
        "select": "done",
        "deploy": "skipped",
    }
    best = RunRecord.read(served.run).ranking.best.name  # type: ignore[union-attr]
    first, second = (run.run.joinpath("report.html").read_text() for run in (served, cached))
    # What passed the gate is highlighted in the first alone.
    for heading in FROM_STEPS[1:]:
        heading = heading.format(best=best)
        assert section_of(first, heading) == section_of(second, heading), heading
    assert "nothing is deployed" in second
    pages = [{page.name: page.read_bytes() for page in (run.run / "pages").iterdir()} for run in (served, cached)]
    assert pages[0].keys() == pages[1].keys()
    assert [name for name in pages[0] if pages[0][name] != pages[1][name]] in ([], ["leaderboard.html"])
    for model in ("cnn", "cnn_dropout"):
        assert list((cached.run / "tensorboard" / model).glob("train/events*"))


def test_numbers_are_those_of_the_steps(served: SimpleNamespace) -> None:
    record = RunRecord.read(served.run)
    text = (served.run / "report.html").read_text()
    assert record.ranking is not None
    assert record.latency is not None
    assert 0 < record.latency.p50 <= record.latency.p90 <= record.latency.p99
    assert record.latency.requests >= 20
    assert f"<strong>{record.ranking.best.test_accuracy:.2%}</strong>" in text
    assert f"<strong>{record.latency.p50:.1f} ms</strong>" in text
    for step in record.steps:
        assert step.state == "done"
        assert f"<title>{step.stage} " in text
    assert all(0 <= step.started < record.seconds for step in record.steps if step.started is not None)


def test_failed_run_shows_the_failed_step_and_its_last_lines(failed: SimpleNamespace) -> None:
    text = (failed.run / "report.html").read_text()
    section = section_of(text, "Failed: ingest")
    assert section is not None
    assert "dog/7.png is empty" in section.body
    assert [step.state for step in RunRecord.read(failed.run).steps] == ["failed", *["skipped"] * 6]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_pages_open_offline_without_errors(run: SimpleNamespace, browser: Any, theme: str, width: int) -> None:
    context = browser.new_context(color_scheme=theme, viewport={"width": width, "height": 800}, offline=True)
    page = context.new_page()
    errors: list[str] = []
    requested: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    opened = [run.run / "report.html", *sorted((run.run / "pages").iterdir())]
    for path in opened:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path.name
        broken = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
        assert page.evaluate(broken) == 0, path.name
        light = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] > 128")
        assert light is (theme == "light")
    assert errors == []
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []
    assert {url for url in requested if url.startswith("file:")} == {path.as_uri() for path in opened}
    context.close()


def test_links_lead_somewhere_wherever_the_folder_lies(served: SimpleNamespace, browser: Any, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("report.html", "run.log", "run.json"):
        shutil.copyfile(served.run / name, moved / name)
    shutil.copytree(served.run / "pages", moved / "pages")
    page = browser.new_page()
    page.goto((moved / "report.html").as_uri())
    links = page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)")
    assert {Path(link).name for link in links} >= {
        "training-cnn.html",
        "training-cnn_dropout.html",
        "evaluation-cnn.html",
        "leaderboard.html",
        "dataset.html",
        "run.log",
    }
    for link in links:
        assert Path(link.removeprefix("file://")).is_file(), link
        if link.endswith(".html"):
            page.goto(link)
            assert page.locator("h1").inner_text()
    page.close()


def test_charts_answer_the_pointer_and_the_legend(served: SimpleNamespace, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto((served.run / "report.html").as_uri())
    chart = page.locator(".chart").first
    chart.scroll_into_view_if_needed()
    box = chart.locator("svg").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2)
    tip = chart.locator(".tip").inner_text()
    assert tip.startswith("epoch 2")
    assert "cnn_dropout, training" in tip
    page.get_by_role("button", name="cnn_dropout").click()
    assert chart.locator("polyline:visible").count() == 2
    page.close()
