"""The committed IR: fresh, and of use to somebody who has nothing else of this package."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from kfp import compiler, dsl
from kfp.components import load_component_from_file
from repository import REPOSITORY

from kfp_image_classification.pipelines.runner.compiled import compile_components

COMPILED = REPOSITORY / "compiled"
Command = Callable[..., SimpleNamespace]


def documents(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("pipeline", ["e2e", "retrain", "vertex"])
def test_pipeline_is_fresh(pipeline: str, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.yaml"
    script = REPOSITORY / "pipelines" / f"{pipeline}.py"
    subprocess.run([sys.executable, script, "--compile", "--output", fresh], check=True, cwd=tmp_path)
    assert documents(COMPILED / f"{pipeline}.yaml") == documents(fresh), "stale: run `make compile`"


@pytest.mark.parametrize("pipeline", ["e2e", "retrain", "vertex"])
def test_compiled_anywhere(pipeline: str, tmp_path: Path) -> None:
    module = f"kfp_image_classification.pipelines.{pipeline}"
    ended = subprocess.run(
        [sys.executable, "-m", module, "--compile"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ended.stdout == f"wrote compiled/{pipeline}.yaml\n"
    assert documents(tmp_path / "compiled" / f"{pipeline}.yaml")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("file/e2e.yaml", "error: output = 'file/e2e.yaml': cannot be written (File exists)"),
        ("folder.yaml", "error: output = 'folder.yaml': is a folder; name a file in it"),
        ("e2e.txt", "error: output = 'e2e.txt': must be a file that ends in .yaml or .yml or .json"),
        ("folder.yaml/", "error: output = 'folder.yaml': is a folder; name a file in it"),
        ("new/", "error: output = 'new': must be a file that ends in .yaml or .yml or .json"),
    ],
)
def test_output_that_cannot_be_written(
    output: str, message: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder.yaml").mkdir()
    ended = command("--compile", "--output", output)
    assert (ended.code, ended.err) == (2, [message])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder.yaml"]


def test_only_train_needs_more_of_kfp_than_2_14() -> None:
    """As components/README.md says: kfp 2.14 does not know the type of train's input that KFP fills in."""
    of_2_15 = [path.name for path in (COMPILED / "components").glob("*.yaml") if "TASK_CONFIG" in path.read_text()]
    assert of_2_15 == ["train.yaml"]
    for page in (REPOSITORY / "components" / "README.md", REPOSITORY / "components" / "train" / "README.md"):
        assert "kfp 2.15 or newer" in page.read_text()


def test_components_are_fresh(tmp_path: Path) -> None:
    compile_components(tmp_path)
    committed, fresh = (
        {path.name: documents(path) for path in folder.glob("*.yaml")} for folder in (COMPILED / "components", tmp_path)
    )
    assert {"ingest.yaml", "train.yaml", "evaluate.yaml", "select.yaml", "deploy.yaml"} <= set(fresh)
    assert committed == fresh, "stale: run `make compile`"


def test_pipeline_from_component_files_alone(tmp_path: Path) -> None:
    ingest, train, evaluate, select, deploy = (
        load_component_from_file(str(COMPILED / "components" / f"{name}.yaml"))
        for name in ("ingest", "train", "evaluate", "select", "deploy")
    )

    @dsl.pipeline(name="from-files")
    def from_files() -> None:
        data = ingest(dataset="mnist_5k")
        with dsl.ParallelFor(["cnn", "cnn_small"]) as model_type:
            trained = train(shards=data.outputs["shards"], model_type=model_type)
            evaluated = evaluate(model=trained.outputs["model"], shards=data.outputs["shards"])
        selected = select(
            models=dsl.Collected(trained.outputs["model"]),
            evaluations=dsl.Collected(evaluated.outputs["metrics"]),
        )
        with dsl.If(selected.outputs["Output"] == True):  # noqa: E712 - a condition of the pipeline
            deploy(model=selected.outputs["best"])

    compiler.Compiler().compile(from_files, str(tmp_path / "from_files.yaml"))
    (spec, *_) = documents(tmp_path / "from_files.yaml")
    assert {"comp-ingest", "comp-train", "comp-evaluate", "comp-select", "comp-deploy"} <= set(spec["components"])
