"""What a person looks for, at the top of a run's folder and under names with endings."""

import itertools
import os
import shutil
import time
from pathlib import Path

from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.model_settings import file_name
from kfp_image_classification.pipelines.runner.local.report import report_page
from kfp_image_classification.pipelines.runner.local.run_record import RunRecord

LOG_FILE, REPORT_FILE, PAGES, TENSORBOARD = "run.log", "report.html", "pages", "tensorboard"
LATEST = "latest"
# Below a run's folder, KFP's folders of a step in a loop, a job's and TensorFlow's own file names take about so much.
DEEPEST_BYTES = 400


def make_run_folder(runs_directory: Path) -> Path:
    """Makes a folder for a run, named after the time, and lets `latest` point to it.

    Runs that start in the same second get a number behind the time.

    Args:
        runs_directory: Made where it is not there; `~` is the user's home.

    Raises:
        InvalidInput: When there can be no run in that folder, and why.
    """
    try:
        directory = runs_directory.expanduser().absolute()
        _check_path(directory, runs_directory)
        directory.mkdir(parents=True, exist_ok=True)
        folder = _make_unique(directory / time.strftime("%Y%m%d-%H%M%S"))
        _point_latest(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no such user's home
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(
            f"runs_dir = {str(runs_directory)!r}: cannot be written ({reason}); choose another folder"
        ) from None
    return folder


def _check_path(directory: Path, given: Path) -> None:
    try:
        length = len(str(directory).encode())
    except UnicodeEncodeError:
        raise InvalidInput(f"runs_dir = {str(given)!r}: is not UTF-8, as KFP needs it; choose another folder") from None
    longest = os.pathconf("/", "PC_PATH_MAX")
    if length + DEEPEST_BYTES > longest:
        raise InvalidInput(
            f"runs_dir = {str(given)!r}: has {length} bytes; with the names of a run's files it would be longer than "
            f"the {longest} that this system allows; choose another folder"
        )


def _make_unique(folder: Path) -> Path:
    names = itertools.chain([folder.name], (f"{folder.name}-{number}" for number in itertools.count(2)))
    for name in names:
        try:
            (made := folder.with_name(name)).mkdir()
        except FileExistsError:
            continue
        return made
    raise AssertionError("there are more numbers than folders")


def _point_latest(folder: Path) -> None:
    """In one step: whoever reads it meanwhile finds the run before or this one."""
    fresh = folder.with_name(f".{LATEST}-{folder.name}")
    fresh.symlink_to(folder.name)
    try:
        fresh.replace(folder.with_name(LATEST))
    except OSError:  # a folder of that name, say
        fresh.unlink()
        folder.rmdir()
        raise


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
    (record.directory / REPORT_FILE).write_text(report_page(record, links), encoding="utf-8")


def step_pages(record: RunRecord) -> dict[str, Path]:
    """The pages that the steps of a run made, also those from the cache, by their names in the run's folder."""
    found = {
        "leaderboard": record.step("select").path("leaderboard"),
        "dataset": record.step("ingest").path("preview"),
        "monitor": record.step("monitor").path("report"),
    }
    for step in record.steps:
        if step.stage == "train":
            found[f"training-{file_name(step.model)}"] = step.path("curves")
        elif step.stage == "evaluate":
            found[f"evaluation-{file_name(step.model)}"] = step.path("report")
    return {name: page for name, page in found.items() if page}


def link_tensorboard(run_directory: Path, model: str, job_directory: Path) -> None:
    """Shows a training job's TensorBoard logs under the model's name; there may be none yet."""
    (run_directory / TENSORBOARD).mkdir(exist_ok=True)
    _link(run_directory / TENSORBOARD / file_name(model), job_directory / "tensorboard")


def _link(link: Path, target: Path) -> None:
    if not link.is_symlink():
        # Either may lie behind a link of its own, as when `runs` is one to a larger disk.
        link.symlink_to(os.path.relpath(target.resolve(), link.parent.resolve()))
