"""Rules of the tree: who may import whom, what is committed, and what each component says of itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parent.parent
STAGES = ["ingest", "train", "evaluate", "select", "deploy", "track"]


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
    others = tuple(f"components.{other}" for other in STAGES if other != stage)
    for path in (REPOSITORY / "components" / stage).rglob("*.py"):
        assert not [name for name in imports(path) if name.startswith(others)], path


@pytest.mark.parametrize(
    "module",
    [
        "components.train.run_job",
        "components.train.options",
        "components.select.leaderboard",
        "components.deploy.local_server",
        "components.deploy.options",
        "components.track.tracked_run",
        "components.deploy.predict",
        "components.deploy.server",
        "components.deploy.grpc_server",
        "pipelines.parameters",
        "pipelines.summary",
        "pipelines.report",
        "pipelines.live_view",
    ],
)
def test_loads_without_tensorflow(module: str) -> None:
    code = f"import sys, {module}; sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'kserve')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", ["components.train.worker", "components.deploy.server"])
def test_loads_without_kfp(module: str) -> None:
    code = f"import sys, {module}; sys.exit('kfp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_compiled_pipeline_is_fresh(tmp_path: Path) -> None:
    fresh = tmp_path / "e2e.yaml"
    subprocess.run(
        [sys.executable, REPOSITORY / "pipelines" / "e2e.py", "--compile", "--output", fresh], check=True, cwd=tmp_path
    )
    committed = REPOSITORY / "compiled" / "e2e.yaml"
    assert list(yaml.safe_load_all(committed.read_text())) == list(yaml.safe_load_all(fresh.read_text())), (
        "compiled/e2e.yaml is stale: run `make compile`"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_component_is_importable_alone_and_documented(stage: str) -> None:
    package = __import__(f"components.{stage}", fromlist=[stage])
    component = getattr(package, stage)
    assert component.description
    inputs = component.component_spec.inputs or {}
    outputs = {name: spec for name, spec in (component.component_spec.outputs or {}).items() if name != "Output"}
    readme = (REPOSITORY / "components" / stage / "README.md").read_text()
    for name in [*inputs, *outputs]:
        assert f"`{name}`" in readme, f"components/{stage}/README.md does not name {name}"
