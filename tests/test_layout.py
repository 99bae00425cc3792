"""Rules of the tree: who may import whom, what is committed, and what each component says of itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from repository import REPOSITORY

STAGES = ["preflight", "ingest", "train", "evaluate", "select", "deploy", "track", "cleanup"]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_imports_another(stage: str) -> None:
    others = {other for other in STAGES if other != stage}
    for path in (REPOSITORY / "components" / stage).rglob("*.py"):
        assert not [name for name in imports(path) if others & set(name.split(".")[2:3])], path


def test_the_exchange_knows_only_arrays_and_addresses() -> None:
    own, allowed = (
        "kfp_image_classification.components.train.exchange",
        {"numpy", "ml_dtypes", *sys.stdlib_module_names},
    )
    for path in (REPOSITORY / "components" / "train" / "exchange").glob("*.py"):
        others = [name for name in imports(path) if name.split(".")[0] not in allowed and not name.startswith(own)]
        assert set(others) <= {"kfp_image_classification.components.step.errors"}, path


@pytest.mark.parametrize(
    "module",
    [
        "kfp_image_classification.components.train.run_job",
        "kfp_image_classification.components.train.options",
        "kfp_image_classification.components.train.launchers.cluster_job",
        "kfp_image_classification.components.train.exchange",
        "kfp_image_classification.components.cleanup.old_runs",
        "kfp_image_classification.components.select.leaderboard",
        "kfp_image_classification.components.deploy.local_server",
        "kfp_image_classification.components.deploy.options",
        "kfp_image_classification.components.deploy.kserve.cluster",
        "kfp_image_classification.components.select.champion",
        "kfp_image_classification.components.preflight.report",
        "kfp_image_classification.components.deploy.predict",
        "kfp_image_classification.components.deploy.server",
        "kfp_image_classification.components.deploy.server.grpc_server",
        "kfp_image_classification.components.track.tracked_run",
        "kfp_image_classification.pipelines.runner.parameters",
        "kfp_image_classification.pipelines.runner.local.summary",
        "kfp_image_classification.pipelines.runner.local.report",
        "kfp_image_classification.pipelines.runner.local.live_view",
    ],
)
def test_loads_without_tensorflow(module: str) -> None:
    code = f"import sys, {module}; sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'kserve')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "module", ["kfp_image_classification.components.train.worker", "kfp_image_classification.components.deploy.server"]
)
def test_loads_without_kfp(module: str) -> None:
    code = f"import sys, {module}; sys.exit('kfp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("stage", STAGES)
def test_component_is_importable_alone_and_documented(stage: str) -> None:
    package = __import__(f"kfp_image_classification.components.{stage}", fromlist=[stage])
    component = getattr(package, stage)
    assert component.description
    inputs = component.component_spec.inputs or {}
    outputs = {name: spec for name, spec in (component.component_spec.outputs or {}).items() if name != "Output"}
    readme = (REPOSITORY / "components" / stage / "README.md").read_text()
    for name in [*inputs, *outputs]:
        assert f"`{name}`" in readme, f"components/{stage}/README.md does not name {name}"
