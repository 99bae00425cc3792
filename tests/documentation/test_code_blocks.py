"""Python in the pages is Python, pipelines in it compile, and YAML can be read."""

from pathlib import Path

import pytest
import yaml
from kfp import compiler
from kfp.dsl.graph_component import GraphComponent

from documentation.pages import REPOSITORY, Block, blocks

PYTHON = blocks("python")
YAML = blocks("yaml", "yml")


@pytest.mark.parametrize("block", PYTHON, ids=map(str, PYTHON))
def test_python_compiles(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    code = compile(block.text, str(block), "exec")
    if "@dsl.pipeline" in block.text:
        names: dict[str, object] = {}
        exec(code, names)
        for pipeline in (value for value in names.values() if isinstance(value, GraphComponent)):
            compiler.Compiler().compile(pipeline, str(tmp_path / "pipeline.yaml"))
        assert (tmp_path / "pipeline.yaml").is_file()


@pytest.mark.parametrize("block", YAML, ids=map(str, YAML))
def test_yaml_can_be_read(block: Block) -> None:
    assert all(document is not None for document in yaml.safe_load_all(block.text))
