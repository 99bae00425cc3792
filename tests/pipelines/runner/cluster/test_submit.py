"""`--submit`: against the API of Kubeflow Pipelines over HTTP, through the command line."""

import datetime
import ipaddress
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kfp_api import KfpApi
from repository import REPOSITORY

Command = Callable[..., SimpleNamespace]
TOKEN = "a-secret-of-the-test"


def test_a_run_is_started_with_its_parameters(command: Command, kfp_api: KfpApi) -> None:
    ended = command(
        "--submit", "--host", kfp_api.url + "/", "--experiment", "digits", "--models", "cnn", "--epochs", "3"
    )
    assert ended.code == 0, ended.err
    (run,) = kfp_api.runs
    assert ended.out == [f"run {run['run_id']} was started: {kfp_api.url}/#/runs/details/{run['run_id']}"]
    assert run["display_name"].startswith("image-classification 20")
    assert run["runtime_config"]["parameters"] | {"models": ["cnn"], "epochs": 3} == run["runtime_config"]["parameters"]
    assert [experiment["display_name"] for experiment in kfp_api.experiments] == ["digits"]
    cached = {"preflight": False, "ingest": True, "train": True, "evaluate": True, "select": False, "deploy": False}
    assert caching(run).items() >= cached.items()


def test_an_experiment_is_used_again_and_the_cache_is_not(command: Command, kfp_api: KfpApi) -> None:
    for name in ("first", "second"):
        assert command("--submit", "--host", kfp_api.url, "--run-name", name, "--no-cache").code == 0
    assert [run["display_name"] for run in kfp_api.runs] == ["first", "second"]
    assert len({run["experiment_id"] for run in kfp_api.runs}) == len(kfp_api.experiments) == 1
    assert not any(caching(kfp_api.runs[0]).values())


def caching(run: dict) -> dict[str, bool]:
    """Whether each task may be taken from the cache, in loops and conditions too."""
    document = run["pipeline_spec"]
    spec = document.get("pipeline_spec", document)
    return {
        name: task.get("cachingOptions", {}).get("enableCache", False)
        for part in (spec["root"], *spec["components"].values())
        for name, task in part.get("dag", {}).get("tasks", {}).items()
        if "executorLabel" in spec["components"][task["componentRef"]["name"]]
    }


@pytest.mark.parametrize(
    ("state", "error", "code", "last"),
    [
        ("SUCCEEDED", "", 0, "the run succeeded"),
        ("FAILED", "", 1, "the run failed in train"),
        ("FAILED", "out of quota", 1, "the run failed in train: out of quota"),
        ("CANCELED", "", 1, "the run canceled"),
    ],
)
def test_waiting_ends_with_the_runs_outcome(
    command: Command, kfp_api: KfpApi, state: str, error: str, code: int, last: str
) -> None:
    kfp_api.steps = [
        ("PENDING", {}),
        ("RUNNING", {"ingest": "RUNNING"}),
        ("RUNNING", {"ingest": "SUCCEEDED", "train#1": "RUNNING", "train#2": "RUNNING"}),
        ("RUNNING", {"ingest": "SUCCEEDED", "train#1": "RUNNING", "train#2": "RUNNING"}),
        (state, {"ingest": "SUCCEEDED", "train#1": state, "train#2": "SUCCEEDED"}),
    ]
    kfp_api.error = error
    ended = command("--submit", "--host", kfp_api.url, "--wait")
    assert ended.code == code
    assert ended.out[1:] == [
        "[ingest] running",
        "[ingest] succeeded",
        "[train] running",
        "[train 2] running",
        f"[train] {state.lower()}",
        "[train 2] succeeded",
        last,
    ]


def candidate(name: str, accuracy: float) -> dict[str, object]:
    places = {place: "" for place in ("uri", "evaluation_uri", "dataset_uri")}
    numbers = {"val_loss": 0.1, "test_macro_f1": 0.9, "parameters": 93322, "bytes": 400000, "images_per_second": 1.0}
    return {"name": name, "val_accuracy": accuracy, "test_accuracy": accuracy - 0.01, **places, **numbers}


def test_the_models_are_told_at_the_end(command: Command, kfp_api: KfpApi) -> None:
    kfp_api.ranking = {"candidates": [candidate("cnn", 0.975), candidate("resnet", 0.96)], "min_accuracy": 0.9}
    ended = command("--submit", "--host", kfp_api.url, "--wait")
    assert ended.code == 0
    assert ended.out[-4:] == [
        "the run succeeded",
        "cnn: 97.50% validation, 96.50% test, 93,322 parameters",
        "resnet: 96.00% validation, 95.00% test, 93,322 parameters",
        "cnn is the best with a validation accuracy of 97.50%.",
    ]


@pytest.mark.parametrize(
    ("has_metadata", "ranking", "problem"),
    [(False, None, "the metadata store does not answer: "), (True, {"other": 1}, "is of another version: ")],
)
def test_an_outcome_is_one_without_a_leaderboard(
    command: Command, kfp_api: KfpApi, has_metadata: bool, ranking: dict[str, object] | None, problem: str
) -> None:
    kfp_api.has_metadata, kfp_api.ranking = has_metadata, ranking
    ended = command("--submit", "--host", kfp_api.url, "--wait")
    assert ended.code == 0
    assert any("the leaderboard is in the UI; here it cannot be shown: " in line for line in ended.out)
    assert any(problem in line for line in ended.out)


def test_a_restart_of_the_server_is_waited_for(command: Command, kfp_api: KfpApi) -> None:
    kfp_api.faults = [503, 502, 429]
    assert command("--submit", "--host", kfp_api.url, "--wait").out[-1] == "the run succeeded"


def test_ctrl_c_leaves_the_run_alone(kfp_api: KfpApi) -> None:
    kfp_api.steps = [("RUNNING", {"ingest": "RUNNING"})]
    process = subprocess.Popen(
        [sys.executable, REPOSITORY / "pipelines" / "e2e.py", "--submit", "--host", kfp_api.url, "--wait"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    started, running = process.stdout.readline(), process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    link = started.split(" was started: ")[1]
    assert (process.returncode, running, out, err) == (130, "[ingest] running\n", f"the run goes on: {link}", "")


def test_following_stops_in_time(command: Command, kfp_api: KfpApi) -> None:
    kfp_api.steps = [("RUNNING", {"ingest": "RUNNING"})]
    ended = command("--submit", "--host", kfp_api.url, "--wait", "--timeout", "0.5")
    assert (ended.code, ended.err) == (1, ["error: the run is still running after 0.5 s; it goes on"])


@pytest.mark.parametrize("given", ["file", "variable", "option"])
def test_a_token_opens_the_door(
    command: Command, kfp_api: KfpApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    kfp_api.token = TOKEN
    options = []
    if given == "file":
        (tmp_path / "token").write_text(TOKEN + "\n")
        options = ["--token-file", str(tmp_path / "token")]
    elif given == "variable":
        monkeypatch.setenv("KF_PIPELINES_TOKEN", TOKEN)
    else:
        options = ["--token", TOKEN]
    ended = command("--submit", "--host", kfp_api.url, *options, "--wait")
    assert ended.code == 0
    assert TOKEN not in "".join(ended.out + ended.err)


def test_a_token_that_has_run_out_is_read_again(command: Command, kfp_api: KfpApi, tmp_path: Path) -> None:
    kfp_api.token = TOKEN
    file = tmp_path / "token"
    file.write_text(TOKEN)

    def replace_token() -> None:
        kfp_api.token = TOKEN + "-2"
        file.write_text(TOKEN + "-2")

    kfp_api.on_get = replace_token
    ended = command("--submit", "--host", kfp_api.url, "--token-file", str(file), "--wait")
    assert (ended.code, ended.err) == (0, [])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "does not let us in, give a token with --token-file or KF_PIPELINES_TOKEN (HTTP 401)"),
        (["--token", "wrong"], "does not let us in, the token is not accepted (HTTP 401)"),
    ],
)
def test_without_the_right_token(command: Command, kfp_api: KfpApi, options: list[str], problem: str) -> None:
    kfp_api.token = TOKEN
    ended = command("--submit", "--host", kfp_api.url, *options)
    assert (ended.code, ended.err) == (2, [f"error: host = {kfp_api.url!r}: {problem}"])


@pytest.mark.parametrize(
    ("options", "problems"),
    [
        (["--host", ""], ["host = '': expected an address such as http://localhost:8080"]),
        (["--host", "localhost:8080"], ["host = 'localhost:8080': expected an address such as http://localhost:8080"]),
        (
            ["--host", "x", "--ca-cert", "none.pem", "--timeout", "-1"],
            [
                "host = 'x': expected an address such as http://localhost:8080",
                "ca_cert = 'none.pem': there is no such file",
                "timeout = -1: must be 0 (no limit) or more seconds",
            ],
        ),
        (["--token-file", "none"], ["token_file = 'none': cannot be read (No such file or directory)"]),
        (["--workers", "0"], ["workers = 0: Input should be greater than or equal to 1"]),
    ],
)
def test_bad_options_are_told_before_anything_is_asked(
    command: Command, kfp_api: KfpApi, options: list[str], problems: list[str]
) -> None:
    ended = command("--submit", "--host", kfp_api.url, *options)
    assert (ended.code, ended.err) == (2, [f"error: {problem}" for problem in problems])


def test_an_unreachable_host(command: Command) -> None:
    ended = command("--submit", "--host", "http://127.0.0.1:9")
    assert ended.code == 1
    (line,) = ended.err
    assert line.startswith("error: host = 'http://127.0.0.1:9': cannot be reached (")
    assert "kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80" in line


def test_another_server(command: Command, kfp_api: KfpApi) -> None:
    ended = command("--submit", "--host", kfp_api.url + "/elsewhere")
    assert (ended.code, len(ended.err)) == (1, 1)
    assert "is no Kubeflow Pipelines 2 (HTTP 404" in ended.err[0]


def test_several_users_need_a_namespace(command: Command, kfp_api: KfpApi) -> None:
    kfp_api.multi_user = True
    ended = command("--submit", "--host", kfp_api.url)
    assert (ended.code, len(ended.err)) == (2, 1)
    assert ended.err[0].startswith("error: namespace = ''")
    assert command("--submit", "--host", kfp_api.url, "--namespace", "team").code == 0
    assert kfp_api.experiments[0]["namespace"] == "team"


def test_a_refused_pipeline(command: Command, kfp_api: KfpApi) -> None:
    ended = command("--submit", "--host", kfp_api.url, "--experiment", "")
    assert (ended.code, len(ended.err)) == (0, 0), "no name is the server's default experiment"
    kfp_api.refuses_runs = "Invalid input error: quota of runs is used up"
    ended = command("--submit", "--host", kfp_api.url)
    assert (ended.code, ended.err) == (
        2,
        ["error: Kubeflow Pipelines refuses the run: Invalid input error: quota of runs is used up (HTTP 400)"],
    )


def test_a_private_certificate(command: Command, tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path / "certificate.pem")
    api = KfpApi(certificate)
    try:
        assert "cannot be reached" in command("--submit", "--host", api.url).err[0]
        assert command("--submit", "--host", api.url, "--ca-cert", str(certificate), "--wait").code == 0
    finally:
        api.stop()


def write_certificate(path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    path.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(encoding)
    )
    return path


def test_a_server_on_this_machine_is_reached_past_the_users_proxy(
    command: Command, kfp_api: KfpApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert command("--submit", "--host", kfp_api.url, "--wait").code == 0
