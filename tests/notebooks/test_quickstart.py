"""The notebook, run by a real kernel against the API of Kubeflow Pipelines."""

import nbformat
import pytest
from kfp_api import KfpApi
from leaderboards import candidate, ranking
from nbclient import NotebookClient
from repository import REPOSITORY

NOTEBOOK = REPOSITORY / "notebooks" / "quickstart.ipynb"
TOKEN = "a-secret-of-the-test"


def test_it_runs_from_top_to_bottom(kfp_api: KfpApi, monkeypatch: pytest.MonkeyPatch) -> None:
    kfp_api.ranking = ranking(candidate("cnn", 0.975, 0.976))
    kfp_api.token = TOKEN
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", kfp_api.url)
    monkeypatch.setenv("KF_PIPELINES_TOKEN", TOKEN)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()

    shown = nbformat.writes(notebook)
    for expected in ("[Ingest] running", "the run succeeded", "97.50% (95.5 to 98.5)", "cnn is selected"):
        assert expected in shown
    assert TOKEN not in shown
    (run,) = kfp_api.runs
    assert run["runtime_config"]["parameters"] == {"models": ["cnn", "cnn_batchnorm"], "workers": 2, "epochs": 5}


def test_it_is_committed_without_outputs() -> None:
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
