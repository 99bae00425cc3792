"""A whole local run on one page, put together from what its steps recorded and from the sections of their own pages."""

import platform
from collections.abc import Mapping

from markupsafe import Markup

from kfp_image_classification.components.contracts.measures import TITLES, MeasureName, Score, number_words
from kfp_image_classification.components.report import html_report
from kfp_image_classification.components.report.html_report import Section, Tile
from kfp_image_classification.components.step.cpu_limit import usable_cores
from kfp_image_classification.components.train.curves import learning_curves
from kfp_image_classification.components.train.model_settings import file_name
from kfp_image_classification.pipelines.runner.commands import ask_command, serve_command, tensorboard_command
from kfp_image_classification.pipelines.runner.local.pipeline_picture import pipeline_picture, seconds_text
from kfp_image_classification.pipelines.runner.local.run_record import RunRecord, Step

MOST_LOG_LINES = 20


def report_page(record: RunRecord, links: Mapping[str, str]) -> str:
    """Renders the report; what a failed run did not come to is left out.

    Args:
        record: The run.
        links: The steps' pages, by name, as seen from the report.
    """
    sections = [
        *[_failed(step) for step in record.failed_steps],
        Section("Pipeline", pipeline_picture(record) + _timeline(record) + _restarts(record)),
        *_models(record),
        *_curves(record),
        *_evaluation(record, links),
        *_use(record),
        *_data(record),
        _settings(record),
        _files(record, links),
    ]
    return html_report.page(
        "Image classification, end to end",
        f"{record.parameters['dataset']}, {_count(len(record.parameters['models']), 'model')}. "
        f"Run {record.directory.name}, started {record.started:%d %B %Y, %H:%M}.",
        sections,
        opening=html_report.banner(*_verdict(record)) + html_report.tiles(_tiles(record)),
    )


def _verdict(record: RunRecord) -> tuple[str, str]:
    """A tone and a sentence."""
    if record.watched and not record.failure and not record.ranking:
        return "good", f"{record.watched[0].upper()}{record.watched[1:]}. Nothing was trained."
    if record.failure or not record.ranking:
        return "bad", f"The run did not reach its end: {record.what_failed}"
    if not record.ranking.passed:
        return "warn", record.ranking.decision
    return "good", f"{record.ranking.decision} It was deployed and answered its smoke prediction right."


def _tiles(record: RunRecord) -> list[Tile]:
    tiles = []
    if ranking := record.ranking:
        best, by = ranking.best, ranking.select_by
        score = best.validation.measured()[by]
        gate = f"{_between(by, score)}; the gate is {number_words(by, ranking.gate)}"
        test = f"{_between('accuracy', best.test.accuracy)}: what to expect of new images"
        tiles += [
            Tile("Best model", best.name, f"of {_count(len(ranking.candidates), 'model')}"),
            Tile(f"Validation {TITLES[by]}", number_words(by, score.value), gate, "bad" if best.missed else "good"),
            Tile("Test accuracy", number_words("accuracy", best.test_accuracy), test),
        ]
    if latency := record.latency:
        tiles.append(Tile("Answer time", f"{latency.p50:.1f} ms", f"median; p99 {latency.p99:.1f} ms"))
    cached = sum(step.state == "cached" for step in record.steps)
    ran = sum(step.state in ("done", "failed") for step in record.steps)
    detail = f"{_count(ran, 'step')} ran" + (f", {cached} from cache" if cached else "")
    return [*tiles, Tile("Whole run", seconds_text(record.seconds), detail)]


def _between(measure: MeasureName, score: Score) -> str:
    """The interval about a score."""
    return f"{number_words(measure, score.low)} to {number_words(measure, score.high)}"


def _failed(step: Step) -> Section:
    lines = step.last_lines[-MOST_LOG_LINES:] or ["(it printed nothing)"]
    return Section(
        f"Failed: {step.title}", html_report.log_lines(lines) + html_report.note("Its last lines; all are in run.log.")
    )


def _timeline(record: RunRecord) -> Markup:
    rows = [
        (step.title, step.started, step.seconds, seconds_text(step.seconds), step.state == "failed")
        for step in record.steps
        if step.started is not None and step.seconds is not None
    ]
    return html_report.timeline("Where the time went", rows, record.seconds) if rows else Markup("")


def _restarts(record: RunRecord) -> Markup:
    return Markup().join(html_report.note(f"{sentence}.") for sentence in record.restarts)


def _models(record: RunRecord) -> list[Section]:
    page = record.step("select").path("leaderboard")
    found = html_report.section_of(page.read_text(encoding="utf-8"), "Models") if page else None
    return [found] if found else []


def _curves(record: RunRecord) -> list[Section]:
    artifacts = {step.model: step.artifact("model") for step in record.steps if step.stage == "train"}
    histories = {model: artifact["metadata"]["history"] for model, artifact in artifacts.items() if artifact}
    return [Section("Learning curves", learning_curves(histories))] if histories else []


def _evaluation(record: RunRecord, links: Mapping[str, str]) -> list[Section]:
    if not record.ranking:
        return []
    best = record.ranking.best.name
    page = record.step("evaluate", best).path("report")
    text = page.read_text(encoding="utf-8") if page else ""
    found = {
        heading: html_report.section_of(text, heading)
        for heading in ("Confusion matrix", "Calibration", "Most confidently wrong", "Classes")
    }
    sections = [Section(f"{heading}, {best}", section.body) for heading, section in found.items() if section]
    others = {
        candidate.name: links[f"evaluation-{file_name(candidate.name)}"]
        for candidate in record.ranking.candidates[1:]
        if f"evaluation-{file_name(candidate.name)}" in links
    }
    if sections and others:
        last = sections[-1]
        sections[-1] = Section(last.heading, last.body + html_report.links("The same of", others))
    return sections


def _use(record: RunRecord) -> list[Section]:
    endpoint, latency = record.endpoint, record.latency
    if not endpoint:
        return []
    body = Markup()
    if endpoint.pid:
        body += html_report.command(serve_command(endpoint, record.directory / "model"), "Serve the model:")
    body += html_report.command(ask_command(endpoint, record.directory / "service"), "Ask it about one image:")
    body += html_report.note(
        f"The image shows {endpoint.example_label}; the service answered {endpoint.example_answer}, "
        f"{endpoint.example_probability:.1%} sure."
    )
    sections = [Section("Serve and ask the model", body)]
    if latency:
        cores = usable_cores()
        measured = {
            "median": f"{latency.p50:.2f} ms",
            "90% within": f"{latency.p90:.2f} ms",
            "99% within": f"{latency.p99:.2f} ms",
        }
        note = (
            f"{latency.requests} requests of one image each, one after the other over one connection, just after the "
            f"smoke prediction. Client and server shared this machine ({cores} cores): there is no network in these "
            "times, and no load from others."
        )
        sections.append(Section("Answer time", html_report.facts(measured) + html_report.note(note)))
    return sections


def _data(record: RunRecord) -> list[Section]:
    page = record.step("ingest").path("preview")
    text = page.read_text(encoding="utf-8") if page else ""
    headings = ("Training images", "Training images of each class", "Splits")
    return [section for heading in headings if (section := html_report.section_of(text, heading))]


def _settings(record: RunRecord) -> Section:
    parameters = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in record.parameters.items()
        if value not in ("", {})
    }
    body = html_report.facts(parameters)
    versions = {"Python": platform.python_version()}
    if card := record.best_card:
        versions = {**card.versions, "git revision": card.git_revision[:12], "data set": card.dataset_fingerprint}
    return Section("Parameters and versions", body + html_report.subheading("Versions") + html_report.facts(versions))


def _files(record: RunRecord, links: Mapping[str, str]) -> Section:
    body = html_report.links(
        "Pages of single steps", {name.replace("-", " of ", 1): link for name, link in links.items()}
    )
    files = {name: name for name in ("run.log", "run.json") if (record.directory / name).exists()}
    body += html_report.links("Files", files)
    logs = record.directory / "tensorboard"
    if logs.is_dir():
        body += html_report.command(tensorboard_command(logs), "TensorBoard of all models:")
    return Section("More", body)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
