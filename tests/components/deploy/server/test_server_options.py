"""The model server's command line."""

import sys

import pytest

from kfp_image_classification.components.deploy.server.options import read_options


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--reload_seconds=-1", "--reload_seconds: expected seconds, 0 or more, got '-1'"),
        ("--drain_seconds=nan", "--drain_seconds: expected seconds, 0 or more, got 'nan'"),
        ("--drain_seconds=inf", "--drain_seconds: expected seconds, 0 or more, got 'inf'"),
        ("--body_seconds=0", "--body_seconds: expected seconds, more than 0, got '0'"),
        ("--max_queue=many", "--max_queue: expected a whole number from 1, got 'many'"),
        ("--workers=-1", "--workers: expected a whole number from 0, got '-1'"),
        ("--model_name=", "--model_name: expected a name without /, as it is part of URLs, got ''"),
        ("--model_name=a/b", "--model_name: expected a name without /, as it is part of URLs, got 'a/b'"),
    ],
)
def test_options_are_refused_in_words(
    option: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["server", "--model_name=m", "--model_dir=x", option])
    with pytest.raises(SystemExit) as ended:
        read_options("")
    assert (ended.value.code, capsys.readouterr().err.splitlines()[-1].partition("argument ")[2]) == (2, told)
