"""`--submit`: runs a pipeline on a cluster through the API of Kubeflow Pipelines, and follows it there."""

import contextlib
import io
import json
import os
import ssl
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import tenacity
from kfp.dsl.base_component import BaseComponent

from kfp_image_classification.components.select.leaderboard import words_of
from kfp_image_classification.components.step.direct_network import http_client, proxy_for
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed
from kfp_image_classification.pipelines.runner.cluster.follow import RunFollower
from kfp_image_classification.pipelines.runner.cluster.run_api import RunApi
from kfp_image_classification.pipelines.runner.cluster.run_metadata import leaderboard

if TYPE_CHECKING:
    from kfp import Client

TOKEN_VARIABLE = "KF_PIPELINES_TOKEN"
CONNECT_SECONDS = 10.0
# A restart of the API, or of the port-forward to it, is waited for while a run is followed.
PATIENCE_SECONDS = 300.0
SHORTEST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.2, 5.0
SUCCEEDED = "SUCCEEDED"
ENDED = (SUCCEEDED, "FAILED", "CANCELED", "SKIPPED")


@dataclass(frozen=True)
class SubmitOptions:
    """Where to run a pipeline, and how.

    Attributes:
        host: Address of Kubeflow Pipelines, such as http://localhost:8080.
        namespace: The user's namespace where Kubeflow has several users; empty for a standalone one.
        experiment: Groups runs in the UI; made when there is none of the name.
        run_name: Empty for the pipeline's name and the time.
        token_file: File with a bearer token, read at each request.
        token: Bearer token; the file goes before it.
        ca_cert: File with the certificates to trust; empty for the usual ones.
        use_cache: Whether steps that ran before are taken from the cache, as the pipeline says.
        wait: Whether to follow the run to its end.
        timeout: Seconds after which to stop following; 0 for never.
    """

    host: str
    namespace: str = ""
    experiment: str = "Default"
    run_name: str = ""
    token_file: str = ""
    token: str = ""
    ca_cert: str = ""
    use_cache: bool = True
    wait: bool = False
    timeout: float = 0

    def __post_init__(self) -> None:
        problems = []
        if not self.host.startswith(("http://", "https://")):
            problems.append(f"host = {self.host!r}: expected an address such as http://localhost:8080")
        if self.ca_cert and not Path(self.ca_cert).is_file():
            problems.append(f"ca_cert = {self.ca_cert!r}: there is no such file")
        if not self.timeout >= 0:  # what is no number is not, either
            problems.append(f"timeout = {self.timeout:g}: must be 0 (no limit) or more seconds")
        if problems:
            raise InvalidInput(problems)

    def current_token(self) -> str:
        """The bearer token, or nothing.

        Raises:
            InvalidInput: When the file cannot be read, or is empty.
        """
        if not self.token_file:
            return self.token or os.environ.get(TOKEN_VARIABLE, "")
        try:
            token = Path(self.token_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise InvalidInput(f"token_file = {self.token_file!r}: cannot be read ({error.strerror})") from None
        if not token:
            raise InvalidInput(f"token_file = {self.token_file!r}: is empty")
        return token


def submit(
    pipeline: BaseComponent, parameters: Mapping[str, Any], options: SubmitOptions, tell: Callable[[str], None] = print
) -> int:
    """Starts a run, tells its link, and follows it when asked to; returns the exit code.

    Args:
        pipeline: The pipeline.
        parameters: Its parameters, checked.
        options: Where and how.
        tell: Told about the run, a line at a time.

    Raises:
        InvalidInput: When the options, or the server, say that something given is wrong.
        StageFailed: When the server cannot be reached, or fails.
    """
    client = connect(options)
    run_id = _start(client, pipeline, parameters, options)
    link = f"{options.host.rstrip('/')}/#/runs/details/{run_id}"
    tell(f"run {run_id} was started: {link}")
    if not options.wait:
        return 0
    try:
        return follow(client, run_id, options, tell)
    except KeyboardInterrupt:
        tell(f"the run goes on: {link}")
        raise


def connect(options: SubmitOptions) -> "Client":
    """Makes a client, after a look whether Kubeflow Pipelines is there and lets us in.

    Raises:
        InvalidInput: When it does not let us in, or wants a namespace.
        StageFailed: When it is not there.
    """
    from kfp import Client

    token = options.current_token()
    _knock(options, token)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about servers older than 2.0
        return Client(
            host=options.host,
            namespace=options.namespace or "kubeflow",
            credentials=_token_credentials(options) if token else None,
            ssl_ca_cert=options.ca_cert or None,
            proxy=proxy_for(options.host),
        )


def _token_credentials(options: SubmitOptions) -> Any:
    """The token as it is at each request, so that one in a file can be replaced while a run is followed."""
    from kfp.client.token_credentials_base import TokenCredentialsBase

    class CurrentToken(TokenCredentialsBase):
        def refresh_api_key_hook(self, config: Any) -> None:
            config.api_key["authorization"] = options.current_token()

    return CurrentToken()


def follow(client: "Client", run_id: str, options: SubmitOptions, tell: Callable[[str], None] = print) -> int:
    """Tells how a run goes until it ends, and then its models; returns 0 when it succeeded, else 1.

    Raises:
        InvalidInput: When the server does not let us in any more.
        StageFailed: When the server stays away, or the time is over.
    """
    with RunApi(options.host, run_id, options.current_token, options.ca_cert) as api:
        follower = RunFollower(api, tell)
        run = _ended(client, run_id, options, follower)
        tell(_outcome(run, follower.failures))
        _tell_models(run_id, options, follower, tell)
    return 0 if run.state == SUCCEEDED else 1


def _ended(client: "Client", run_id: str, options: SubmitOptions, follower: RunFollower) -> Any:
    started, pause = time.monotonic(), SHORTEST_POLL_SECONDS
    while True:
        run = _answer(lambda: client.get_run(run_id), options)
        is_new = follower.look(run)
        if run.state in ENDED:
            return run
        if options.timeout and time.monotonic() - started > options.timeout:
            raise StageFailed(f"the run is still {str(run.state).lower()} after {options.timeout:g} s; it goes on")
        time.sleep(pause)
        pause = SHORTEST_POLL_SECONDS if is_new else min(1.5 * pause, LONGEST_POLL_SECONDS)


def _knock(options: SubmitOptions, token: str) -> None:
    """Asks for the server's health: kfp's client would try five times and log a traceback each."""
    url = f"{options.host.rstrip('/')}/apis/v2beta1/healthz"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        trusted = ssl.create_default_context(cafile=options.ca_cert or None)
        with http_client(url, headers=headers, timeout=CONNECT_SECONDS, verify=trusted) as http:
            answer = http.get(url)
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, ValueError) as error:
        raise StageFailed(
            f"host = {options.host!r}: cannot be reached ({error}). Is it running? For a local cluster: "
            "kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80"
        ) from None
    if answer.status_code in (401, 403) or answer.is_redirect:
        raise InvalidInput(_not_let_in(options, f"HTTP {answer.status_code}", bool(token)))
    try:
        health = answer.raise_for_status().json()
    except (httpx.HTTPStatusError, ValueError):
        raise StageFailed(
            f"host = {options.host!r}: is no Kubeflow Pipelines 2 (HTTP {answer.status_code} from {url})"
        ) from None
    if health.get("multi_user") and not options.namespace:
        raise InvalidInput("namespace = '': this Kubeflow has several users; name your namespace with --namespace")


def _start(client: "Client", pipeline: BaseComponent, parameters: Mapping[str, Any], options: SubmitOptions) -> str:
    from kfp import compiler

    name = pipeline.component_spec.name
    with tempfile.TemporaryDirectory() as directory:
        package = Path(directory) / f"{name}.yaml"
        compiler.Compiler().compile(pipeline, str(package))
        if not options.use_cache:
            _forbid_cache(package)

        def create() -> Any:
            with contextlib.redirect_stdout(io.StringIO()):  # links, which are told in one line of our own
                return client.create_run_from_pipeline_package(
                    str(package),
                    arguments=dict(parameters),
                    run_name=options.run_name or f"{name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
                    experiment_name=options.experiment,
                    namespace=options.namespace or None,
                )

        return str(_explained(create, options).run_id)


def _forbid_cache(package: Path) -> None:
    """Makes every task of a compiled pipeline run; KFP's own switch leaves those in loops and conditions alone."""
    import yaml

    documents = list(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    for part in (documents[0]["root"], *documents[0]["components"].values()):
        for task in part.get("dag", {}).get("tasks", {}).values():
            task["cachingOptions"] = {}
    package.write_text(yaml.safe_dump_all(documents, sort_keys=False), encoding="utf-8")


def _answer(call: Callable[[], Any], options: SubmitOptions) -> Any:
    """Asks again while the server is away."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_passes),
        wait=tenacity.wait_exponential_jitter(initial=0.2, max=15, jitter=0.2),
        stop=tenacity.stop_after_delay(PATIENCE_SECONDS),
        reraise=True,
    )
    return _explained(lambda: retrying(call), options)


def _passes(error: BaseException) -> bool:
    import urllib3
    from kfp_server_api import ApiException

    if isinstance(error, ApiException):
        return error.status in (0, 429) or (error.status or 0) >= 500
    return isinstance(error, urllib3.exceptions.HTTPError)


def _explained(call: Callable[[], Any], options: SubmitOptions) -> Any:
    import urllib3
    from kfp_server_api import ApiException

    try:
        return call()
    except ApiException as error:
        message = _server_message(error)
        if error.status in (401, 403):
            raise InvalidInput(_not_let_in(options, message, bool(options.current_token()))) from None
        if 400 <= (error.status or 0) < 500:
            raise InvalidInput(f"Kubeflow Pipelines refuses the run: {message}") from None
        raise StageFailed(f"Kubeflow Pipelines failed: {message}") from None
    except urllib3.exceptions.HTTPError as error:
        raise StageFailed(f"host = {options.host!r}: cannot be reached any more ({error})") from None


def _server_message(error: Any) -> str:
    try:
        body = json.loads(error.body or "")
        return f"{body.get('message') or body['error']} (HTTP {error.status})"
    except (KeyError, TypeError, ValueError, AttributeError):
        return f"HTTP {error.status} {error.reason or ''}".strip()


def _not_let_in(options: SubmitOptions, message: str, has_token: bool) -> str:
    remedy = "the token is not accepted" if has_token else f"give a token with --token-file or {TOKEN_VARIABLE}"
    return f"host = {options.host!r}: does not let us in, {remedy} ({message})"


def _tell_models(run_id: str, options: SubmitOptions, follower: RunFollower, tell: Callable[[str], None]) -> None:
    """The leaderboard, if there is one; a store that does not show it changes nothing of the outcome."""
    try:
        ranking = leaderboard(options.host, run_id, options.current_token(), options.ca_cert)
    except StageFailed as error:
        # The address of the API alone does not lead to the metadata store; what select printed it has.
        said = follower.ranking_lines()
        for line in said:
            tell(line)
        if not said:
            tell(f"the leaderboard is in the UI; here it cannot be shown: {error}")
        return
    if ranking:
        for candidate in ranking.candidates:
            accuracies = [words_of("accuracy", scores) for scores in (candidate.validation, candidate.test)]
            tell(
                f"{candidate.name}: accuracy {accuracies[0]} validation, {accuracies[1]} test, "
                f"{candidate.parameters:,} parameters"
            )
        tell(ranking.decision)


def _outcome(run: Any, failures: Mapping[str, str]) -> str:
    told = f"the run {str(run.state).lower()}"
    if failures:
        told += f" in {', '.join(failures)}"
    why = [run.error.message] if run.error and run.error.message else [words for words in failures.values() if words]
    return f"{told}: {why[0]}" if why else told
