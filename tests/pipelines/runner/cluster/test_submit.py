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
from leaderboards import candidate, ranking
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
    cached = {
        "preflight": False,
        "list-parts": False,
        "ingest-part": True,
        "prepare-data": False,
        "ingest": True,
        "train": True,
        "evaluate": True,
        "select": False,
        "deploy": False,
    }
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


MODELS = ["--models", "cnn", "resnet"]
EPOCH = "loss 0.1000  accuracy 0.9000"


def test_a_run_is_told_by_its_own_steps(command: Command, kfp_api: KfpApi) -> None:
    """Not one of Argo's nodes around them, and each state once."""
    kfp_api.steps = [
        ("PENDING", {}),
        ("RUNNING", {"preflight": "SUCCEEDED", "ingest": "RUNNING"}),
        ("RUNNING", {"ingest": "CACHED", "train#1": "RUNNING", "train#2": "RUNNING"}),
        ("RUNNING", {"ingest": "CACHED", "train#1": "RUNNING", "train#2": "RUNNING"}),
        ("RUNNING", {"ingest": "CACHED", "train#1": "SUCCEEDED", "train#2": "SUCCEEDED", "evaluate#2": "RUNNING"}),
        ("SUCCEEDED", {"ingest": "CACHED", "evaluate#2": "SUCCEEDED", "select": "SUCCEEDED", "deploy": "SKIPPED"}),
    ]
    kfp_api.logs["train#1"] = (
        "I1126 12:00:00 launcher_v2.go:100] started\n"
        f"[train cnn] worker-0 | epoch  1/2  {EPOCH}\n[train cnn] worker-1 | ready\n"
        f"[train cnn] worker-0 | epoch  2/2  {EPOCH}\n"
    )
    ended = command("--submit", "--host", kfp_api.url, "--wait", *MODELS)
    assert ended.code == 0
    assert ended.out[1:] == [
        "[Preflight] succeeded",
        "[Ingest] running",
        "[Ingest] taken from the cache",
        "[Train cnn] running",
        f"[Train cnn] epoch  1/2  {EPOCH}",
        f"[Train cnn] epoch  2/2  {EPOCH}",
        "[Train resnet] running",
        "[Train cnn] succeeded",
        "[Train resnet] succeeded",
        "[Evaluate resnet] running",
        "[Evaluate resnet] succeeded",
        "[Select] succeeded",
        "[Deploy] skipped",
        "the run succeeded",
    ]


@pytest.mark.parametrize("is_ui", [True, False], ids=["the UI's address", "the API's address"])
def test_a_failure_is_told_in_the_steps_own_words(command: Command, kfp_api: KfpApi, is_ui: bool) -> None:
    kfp_api.is_ui = is_ui
    kfp_api.steps = [("RUNNING", {"train#2": "RUNNING"}), ("FAILED", {"train#2": "FAILED"})]
    kfp_api.messages["train#2"] = "Error (exit code 1)"
    kfp_api.logs["train#2"] = (
        "[train resnet] training with 2 workers\n"
        "[train resnet] error: TFJob t failed; worker-0 (pod p): OOMKilled; its last lines:\n"
        "[train resnet] error:   epoch 1\n"
    )
    ended = command("--submit", "--host", kfp_api.url, "--wait", *MODELS)
    words = "TFJob t failed; worker-0 (pod p): OOMKilled; its last lines:"
    assert ended.code == 1
    assert [line for line in ended.out if line.startswith(("[", "the run"))] == [
        "[Train resnet] running",
        f"[Train resnet] failed: {words}",
        "[Train resnet]     epoch 1",
        f"the run failed in Train resnet: {words}",
    ]


@pytest.mark.parametrize(
    ("log", "words"),
    [("", "OOMKilled (exit code 137)"), ("Traceback\nKeyError: 'x'\n", "OOMKilled (exit code 137)")],
    ids=["no log", "a traceback"],
)
def test_a_failure_without_words_of_its_own_is_told_in_argos(
    command: Command, kfp_api: KfpApi, log: str, words: str
) -> None:
    kfp_api.steps = [("FAILED", {"ingest": "FAILED"})]
    kfp_api.messages["ingest"], kfp_api.logs["ingest"] = "OOMKilled (exit code 137)", log
    ended = command("--submit", "--host", kfp_api.url, "--wait")
    assert f"[Ingest] failed: {words}" in ended.out
    assert [f"[Ingest]   {line}" for line in log.splitlines()] == ended.out[2:-1]
    assert ended.out[-1] == f"the run failed in Ingest: {words}"


@pytest.mark.parametrize(
    ("state", "error", "code", "last"),
    [
        ("SUCCEEDED", "", 0, "the run succeeded"),
        ("FAILED", "", 1, "the run failed in Train 2"),
        ("FAILED", "out of quota", 1, "the run failed in Train 2: out of quota"),
        ("CANCELED", "", 1, "the run canceled"),
    ],
)
def test_a_server_without_workflows_tells_the_steps_without_their_items(
    command: Command, kfp_api: KfpApi, state: str, error: str, code: int, last: str
) -> None:
    """Kubeflow Pipelines 3 is to have no version v1beta1 of the API."""
    kfp_api.has_workflows, kfp_api.error = False, error
    ended_as = "SUCCEEDED" if state == "CANCELED" else state
    kfp_api.steps = [
        ("PENDING", {}),
        ("RUNNING", {"ingest": "RUNNING"}),
        ("RUNNING", {"ingest": "SUCCEEDED", "train#1": "RUNNING", "train#2": "RUNNING"}),
        (state, {"ingest": "SUCCEEDED", "train#1": "SUCCEEDED", "train#2": ended_as}),
    ]
    ended = command("--submit", "--host", kfp_api.url, "--wait")
    assert ended.code == code
    assert ended.out[1:] == [
        "[Ingest] running",
        "[Ingest] succeeded",
        "[Train] running",
        "[Train 2] running",
        "[Train] succeeded",
        f"[Train 2] {ended_as.lower()}",
        last,
    ]


def test_only_the_api_tells_what_select_said(command: Command, kfp_api: KfpApi) -> None:
    kfp_api.is_ui = False
    kfp_api.steps = [("SUCCEEDED", {"select": "SUCCEEDED"})]
    kfp_api.logs["select"] = "[select] cnn is the best with a validation accuracy of 97.50%.\n[select] took 2.0 s\n"
    ended = command("--submit", "--host", kfp_api.url, "--wait")
    assert ended.out[1:] == [
        "[Select] succeeded",
        "the run succeeded",
        "cnn is the best with a validation accuracy of 97.50%.",
    ]


def test_the_models_are_told_at_the_end(command: Command, kfp_api: KfpApi) -> None:
    kfp_api.ranking = ranking(candidate("cnn", 0.975, 0.965), candidate("resnet", 0.96, 0.95))
    ended = command("--submit", "--host", kfp_api.url, "--wait")
    assert ended.code == 0
    assert ended.out[-4:] == [
        "the run succeeded",
        "cnn: accuracy 97.50% (95.5 to 98.5) validation, 96.50% (94.5 to 97.5) test, 93,322 parameters",
        "resnet: accuracy 96.00% (94.0 to 97.0) validation, 95.00% (93.0 to 96.0) test, 93,322 parameters",
        "cnn is selected.",
    ]


@pytest.mark.parametrize(
    ("is_ui", "ranking", "problem"),
    [(False, None, "the metadata store does not answer: "), (True, {"other": 1}, "is of another version: ")],
)
def test_an_outcome_is_one_without_a_leaderboard(
    command: Command, kfp_api: KfpApi, is_ui: bool, ranking: dict[str, object] | None, problem: str
) -> None:
    kfp_api.is_ui, kfp_api.ranking = is_ui, ranking
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
    assert (process.returncode, running, out, err) == (130, "[Ingest] running\n", f"the run goes on: {link}", "")


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
            ["--host", "x", "--ca-cert", "none.pem", "--wait", "--timeout", "-1"],
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
