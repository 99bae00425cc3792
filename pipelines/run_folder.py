"""What a person looks for, at the top of a run's folder and under names with endings."""

import os
import shutil
from pathlib import Path

from pipelines.report import report_page
from pipelines.run_record import RunRecord

LOG_FILE, REPORT_FILE, PAGES = "run.log", "report.html", "pages"


def collect_results(record: RunRecord) -> None:
    """Copies the steps' pages, links the model, the service and the TensorBoard logs, and writes the report."""
    (record.directory / PAGES).mkdir()
    pages = step_pages(record)
    for name, page in pages.items():
        shutil.copyfile(page, record.directory / PAGES / f"{name}.html")
    if record.ranking:
        _link(record.directory / "model", Path(record.ranking.best.uri))
    if service := record.step("deploy").path("endpoint"):
        _link(record.directory / "service", service)
    _link_tensorboard(record)
    links = {name: f"{PAGES}/{name}.html" for name in pages}
    (record.directory / REPORT_FILE).write_text(report_page(record, links))


def step_pages(record: RunRecord) -> dict[str, Path]:
    """The pages that the steps of a run made, also those from the cache, by their names in the run's folder."""
    found = {"leaderboard": record.step("select").path("leaderboard"), "dataset": record.step("ingest").path("preview")}
    for step in record.steps:
        if step.stage == "train":
            found[f"training-{step.model}"] = step.path("curves")
        elif step.stage == "evaluate":
            found[f"evaluation-{step.model}"] = step.path("report")
    return {name: page for name, page in found.items() if page}


def _link_tensorboard(record: RunRecord) -> None:
    for step in record.steps:
        model = step.artifact("model") if step.stage == "train" else None
        logs = Path(model["metadata"]["work_dir"], "tensorboard") if model else None
        if logs and logs.is_dir():
            (record.directory / "tensorboard").mkdir(exist_ok=True)
            _link(record.directory / "tensorboard" / step.model, logs)


def _link(link: Path, target: Path) -> None:
    link.symlink_to(os.path.relpath(target, link.parent))
