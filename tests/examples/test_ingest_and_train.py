import re
import subprocess
import sys
from pathlib import Path

import pytest
from repository import REPOSITORY

EXAMPLE = REPOSITORY / "examples" / "ingest_and_train.py"


@pytest.mark.slow
def test_runs_on_this_machine(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, EXAMPLE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    accuracy = re.search(r"^cnn_small: ([\d.]+)% of the validation images$", ended.stdout, re.MULTILINE)
    assert accuracy
    assert float(accuracy[1]) > 70
    model = re.search(r"^the model is in (.+)$", ended.stdout, re.MULTILINE)
    assert model
    assert Path(model[1], "1", "saved_model.pb").is_file()


def test_compiles_with_the_command_it_names(tmp_path: Path) -> None:
    kfp = Path(sys.executable).with_name("kfp")
    command = [kfp, "dsl", "compile", "--py", EXAMPLE, "--output", tmp_path / "ingest_and_train.yaml"]
    subprocess.run(command, check=True)
    assert "comp-train" in (tmp_path / "ingest_and_train.yaml").read_text()
