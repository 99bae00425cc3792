"""What a person looks for, at the top of a run's folder and under names with endings."""

import os
import shutil
from pathlib import Path

from kfp_image_classification.pipelines.runner.local.report import report_page
from kfp_image_classification.pipelines.runner.local.run_record import RunRecord

LOG_FILE, REPORT_FILE, PAGES, TENSORBOARD = "run.log", "report.html", "pages", "tensorboard"


def collect_results(record: RunRecord) -> None:
    """Copies the steps' pages, links the model, the service and the TensorBoard logs, and writes the report."""
    (record.directory / PAGES).mkdir()
    pages = step_pages(record)
    for name, page in pages.items():
        shutil.copyfile(page, record.directory / PAGES / f"{name}.html")
    if best := record.step("select").path("best"):
        _link(record.directory / "model", best)
    if service := record.step("deploy").path("endpoint"):
        _link(record.directory / "service", service)
    for step in record.steps:
        if step.stage == "train" and (model := step.artifact("model")):
            link_tensorboard(record.directory, step.model, Path(model["metadata"]["work_dir"]))
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


def link_tensorboard(run_directory: Path, model: str, job_directory: Path) -> None:
    """Shows a training job's TensorBoard logs under the model's name; there may be none yet."""
    (run_directory / TENSORBOARD).mkdir(exist_ok=True)
    _link(run_directory / TENSORBOARD / model, job_directory / "tensorboard")


def _link(link: Path, target: Path) -> None:
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(target, link.parent))
