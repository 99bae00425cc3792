from pathlib import Path

import pytest

from kfp_image_classification.components.step import container_log


def test_line_is_written_into_the_log_of_the_first_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    monkeypatch.setattr(container_log, "FIRST_PROCESS_OUTPUT", str(log))
    assert container_log.write_to_container_log("told to go")
    assert log.read_text() == "before\ntold to go\n"


def test_nothing_happens_where_it_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_log, "FIRST_PROCESS_OUTPUT", str(tmp_path / "none" / "log"))
    assert not container_log.write_to_container_log("told to go")
