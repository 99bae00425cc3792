"""For want of what a test may be skipped. Every skip goes through here, so that none goes unnoticed.

`pytest --require tool` fails each test that would be skipped for want of a tool; `--require definitions` and so on
likewise. A skip that names none of the kinds below fails with any of them.
"""

import shutil
from collections.abc import Generator
from enum import StrEnum
from typing import Any, NoReturn

import pytest


class Need(StrEnum):
    """What a test needs beside this package, by where it comes from."""

    TOOL = "tool"  # a program that `make test-tools` installs
    DEFINITIONS = "definitions"  # the CRDs of real operators, in CRDS_DIR: see CONTRIBUTING.md
    API_SERVER = "api-server"  # a real kube-apiserver and etcd, in KUBEBUILDER_ASSETS: see CONTRIBUTING.md
    DATA = "data"  # prepared data sets in a folder beside the repository
    CLUSTER = "cluster"  # a live cluster behind the current kubeconfig
    PYTHON = "python"  # the Python of an old TensorFlow, in a variable
    SYSTEM = "system"  # what an operating system or its administrator allows


CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def skip(need: Need, reason: str) -> NoReturn:
    """Skips the test, or its fixture's."""
    pytest.skip(f"{need}: {reason}")


def skip_unless(there: object, need: Need, reason: str) -> pytest.MarkDecorator:
    """A mark that skips a test unless something is there."""
    return pytest.mark.skipif(not there, reason=f"{need}: {reason}")


def needs_tool(*names: str) -> pytest.MarkDecorator:
    """A mark for a test of a program, which may have several names."""
    return skip_unless(any(map(shutil.which, names)), Need.TOOL, _not_installed(names))


def tool(*names: str) -> str:
    """The path of a program, which may have several names; skips where it has none."""
    return next(filter(None, map(shutil.which, names)), None) or skip(Need.TOOL, _not_installed(names))


def _not_installed(names: tuple[str, ...]) -> str:
    return f"{names[0]} is not installed; `make test-tools` does it"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        action="append",
        default=[],
        choices=[need.value for need in Need],
        help="fail where a test would be skipped for want of it; may be given several times",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not hasattr(report, "wasxfail"):
        _fail_where_required(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_where_required(report, collector.config)
    return report


def _fail_where_required(report: Any, config: pytest.Config) -> None:
    required = config.getoption("--require")
    if not (required and report.skipped):
        return
    reason = str(report.longrepr[2]).removeprefix("Skipped: ")
    need = reason.partition(":")[0]
    if need in required or need not in list(Need):
        report.outcome = "failed"
        report.longrepr = f"skipped, which --require {' '.join(required)} does not allow: {reason}"
