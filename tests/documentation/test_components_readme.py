"""The pipeline of components/README.md runs on a machine as the page says, from the compiled files alone."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from documentation.pages import REPOSITORY, blocks

PAGE = REPOSITORY / "components" / "README.md"


def test_loaded_components_run_locally_as_the_page_says(trained: SimpleNamespace, tmp_path: Path) -> None:
    texts = [block.text for block in blocks("python") if block.page == PAGE]
    (loaded,) = [text for text in texts if "load_component_from_file" in text]
    (local,) = [text for text in texts if "SubprocessRunner" in text]
    model, outputs = tmp_path / "model", tmp_path / "outputs"
    model.symlink_to(trained.model)
    assert "runs/latest/model" in local
    program = f"{loaded}\n{local}".replace("runs/latest/model", str(model))
    program = program.replace("runs/second-opinion", str(outputs)).replace("compiled/", f"{REPOSITORY / 'compiled'}/")
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (told,) = outputs.glob("*/evaluate/executor_output.json")
    assert json.loads(told.read_text())["artifacts"]["metrics"]["artifacts"][0]["metadata"]["test_accuracy"] > 0.5


def test_every_local_runner_in_the_pages_uses_the_python_that_has_this_package() -> None:
    runners = [line for block in blocks("python") for line in block.text.splitlines() if "SubprocessRunner(" in line]
    assert runners
    assert all("SubprocessRunner(use_venv=False" in line for line in runners)
