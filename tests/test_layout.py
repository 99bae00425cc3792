"""Rules of the tree: rooms, who may import whom, what loads without what, and what each component says of itself."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import REPOSITORY

PACKAGE = "kfp_image_classification"
COMPONENTS = ["preflight", "ingest", "train", "evaluate", "select", "deploy", "monitor", "track", "cleanup"]
# What every component may use, each with those below it that it may use itself.
SHARED = {"contracts": {"report", "step"}, "cluster": {"report", "step"}, "report": {"step"}, "step": set()}
# All that the launchers and the step know of the worker, beside its command line.
KNOWN_OF_THE_WORKER = {"components.train.worker.worker_report", "components.train.worker.exit_codes"}


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for top in ("components", "pipelines") for path in (REPOSITORY / top).rglob("*.py")}
ROOMS = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def imports(module: str) -> Iterator[str]:
    """The modules of this package that one of them imports, wherever in its code."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        for name in names:
            inside = name.removeprefix(f"{PACKAGE}.")
            assert name != inside or name.split(".")[0] not in ("components", "pipelines"), f"{module} imports {name}"
            if name != inside and inside in MODULES:
                yield inside


# A top folder itself holds nothing but a docstring.
ARROWS = {module: {*imports(module)} - {module, "components", "pipelines"} for module in MODULES}


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def test_imports_go_one_way() -> None:
    """Between modules there is no circle; a package's own name stands for its `component.py`."""
    components = {room: f"{room}.component" for room in ROOMS if f"{room}.component" in MODULES}
    graph = {module: {components.get(name, name) for name in ARROWS[module]} for module in MODULES.keys() - ROOMS}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("room", SHARED)
def test_shared_room_imports_only_what_is_below_it(room: str) -> None:
    allowed = {f"components.{name}" for name in {room, *SHARED[room]}}
    for module in filter(lambda module: within(module, f"components.{room}"), MODULES):
        assert all(any(within(name, one) for one in allowed) for name in ARROWS[module]), module


@pytest.mark.parametrize("component", COMPONENTS)
def test_component_imports_no_other(component: str) -> None:
    allowed = {f"components.{name}" for name in {component, *SHARED}}
    for module in filter(lambda module: within(module, f"components.{component}"), MODULES):
        assert all(any(within(name, one) for one in allowed) for name in ARROWS[module]), module


def test_every_folder_is_a_component_or_a_shared_room() -> None:
    folders = {path.parent.name for path in (REPOSITORY / "components").glob("*/__init__.py")}
    assert folders == {*COMPONENTS, *SHARED}
    assert {path.name for path in (REPOSITORY / "components").glob("*.py")} == {"__init__.py"}
    assert {path.parent.name for path in (REPOSITORY / "components").glob("*/component.py")} == {*COMPONENTS}


def test_launchers_and_step_know_only_the_workers_files() -> None:
    worker = "components.train.worker"
    for module in filter(lambda module: within(module, "components.train") and not within(module, worker), MODULES):
        assert {name for name in ARROWS[module] if within(name, worker)} <= {worker, *KNOWN_OF_THE_WORKER}, module
    for module in filter(lambda module: within(module, worker), MODULES):
        assert not [name for name in ARROWS[module] if within(name, "components.train.launchers")], module


def test_the_exchange_knows_only_arrays_and_addresses() -> None:
    exchange = "components.train.exchange"
    for module in filter(lambda module: within(module, exchange), MODULES):
        assert all(within(name, exchange) or within(name, "components.step") for name in ARROWS[module]), module
        nodes = [*ast.walk(ast.parse(MODULES[module].read_text()))]
        names = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
        names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        known = {PACKAGE, "numpy", "ml_dtypes", *sys.stdlib_module_names}
        assert {name.split(".")[0] for name in names} <= known, module


@pytest.mark.parametrize(("one", "other"), [("kserve", "server"), ("server", "kserve")])
def test_rollout_and_server_do_not_know_each_other(one: str, other: str) -> None:
    for module in filter(lambda module: within(module, f"components.deploy.{one}"), MODULES):
        assert not [name for name in ARROWS[module] if within(name, f"components.deploy.{other}")], module


def test_runner_runs_any_pipeline() -> None:
    for module in filter(lambda module: within(module, "pipelines.runner"), MODULES):
        assert not [n for n in ARROWS[module] if within(n, "pipelines") and not within(n, "pipelines.runner")], module


def test_package_has_every_room() -> None:
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert listed == sorted(f"{PACKAGE}.{room}" for room in ROOMS)


def drawn_tree() -> dict[str, str]:
    """The folders drawn in docs/architecture.md, each with what is said of it."""
    (tree,) = re.findall(r"```text tree\n(.*?)```", (REPOSITORY / "docs" / "architecture.md").read_text(), re.DOTALL)
    found: dict[str, str] = {}
    above: list[str] = []
    for line in tree.splitlines():
        indent, name, said = re.fullmatch(r"( *)(\S+)/ +(.*)", line).groups()  # type: ignore[union-attr]
        above = [*above[: len(indent) // 2], name]
        found["/".join(above)] = said
    return found


def test_whoever_reads_with_tf_data_decides_its_numbers() -> None:
    """See `step/untuned_reading.py`."""
    readers = {
        name
        for name, path in MODULES.items()
        if re.search(r"tf\.data\.(Dataset|TFRecordDataset)\b.*\(|\.as_dataset\(", path.read_text())
    }
    assert {"components.train.worker.input_pipeline", "components.ingest.sources.tfds"} <= readers
    for reader in readers:
        text = MODULES[reader].read_text()
        assert "with_options(untuned())" in text or "options=untuned()" in text, reader


def test_drawn_tree_is_the_real_one() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    tops = {path.split("/")[0] for path in listed.split("\0") if "/" in path and not path.startswith(".")}
    drawn = drawn_tree()
    assert {*drawn} == tops | {room.replace(".", "/") for room in ROOMS}
    assert all(said.strip() for said in drawn.values())


@pytest.mark.parametrize(
    "module",
    [
        "components.train.run_job",
        "components.train.options",
        "components.train.launchers.cluster_job",
        "components.cleanup.unused_folders",
        "components.ingest.kept_datasets",
        "components.train.exchange",
        "components.select.leaderboard",
        "components.deploy.local_server",
        "components.deploy.options",
        "components.deploy.kserve.cluster",
        "components.select.champion",
        "components.preflight.report",
        "components.deploy.predict",
        "components.deploy.server.server",
        "components.deploy.server.worker",
        "components.deploy.server.grpc_server",
        "components.deploy.collector.collector",
        "components.track.tracked_run",
        "pipelines.runner.parameters",
        "pipelines.runner.local.summary",
        "pipelines.runner.local.report",
        "pipelines.runner.local.live_view",
    ],
)
def test_loads_without_tensorflow(module: str) -> None:
    code = f"import sys, {PACKAGE}.{module}; sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'kserve')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", ["components.train.worker.worker", "components.deploy.server.worker"])
def test_loads_without_kfp(module: str) -> None:
    code = f"import sys, {PACKAGE}.{module}; sys.exit('kfp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("pipeline", ["e2e", "retrain", "vertex"])
def test_pipeline_loads_without_what_a_shell_may_have_of_another_python(pipeline: str) -> None:
    """What it needs of them is loaded once the run has settled its environment (`components/step/environment.py`)."""
    code = f"import sys, {PACKAGE}.pipelines.{pipeline}; sys.exit(any(m in sys.modules for m in ('numpy', 'httpx')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", COMPONENTS)
def test_component_is_importable_alone_and_documented(name: str) -> None:
    component = getattr(__import__(f"{PACKAGE}.components.{name}", fromlist=[name]), name)
    assert component.description
    inputs = component.component_spec.inputs or {}
    outputs = {key: spec for key, spec in (component.component_spec.outputs or {}).items() if key != "Output"}
    readme = (REPOSITORY / "components" / name / "README.md").read_text()
    for key in [*inputs, *outputs]:
        assert f"`{key}`" in readme, f"components/{name}/README.md does not name {key}"
