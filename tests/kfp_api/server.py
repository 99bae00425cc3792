"""A small server that answers as Kubeflow Pipelines does: experiments, runs, and their tasks' progress."""

import datetime
import json
import re
import ssl
import threading
import urllib.parse
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from kfp_api.workflow import pods, workflow
from kfp_image_classification.pipelines.runner.cluster.run_metadata import MESSAGES, SERVICE, framed

Object = dict[str, Any]
PREFIX = "/apis/v2beta1"
# What the client sees when it asks the first, second ... time: a run's state, and those of its tasks.
Steps = list[tuple[str, dict[str, str]]]
WHOLE_RUN: Steps = [
    ("PENDING", {}),
    ("RUNNING", {"ingest": "RUNNING"}),
    ("RUNNING", {"ingest": "SUCCEEDED", "train": "RUNNING"}),
    ("SUCCEEDED", {"ingest": "SUCCEEDED", "train": "SUCCEEDED"}),
]


class Refused(Exception):
    """An error in place of an answer; `code` is HTTP's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass
class _Run:
    body: Object
    steps: Steps
    seen: int = -1
    error: str = ""


class KfpApi:
    """The server, and a test's hands on the cluster behind it.

    Attributes:
        token: The bearer token that it wants; empty for none.
        multi_user: Whether it wants a namespace.
        steps: How the next runs go.
        error: What the next runs say when they have failed.
        refuses_runs: Why the next runs are refused; empty when they are not.
        faults: HTTP codes that the next requests for a run get in place of an answer.
        on_get: Called before each answer about a run.
        logs: What the steps' pods have printed, by task (`train#2` for the second turn of a loop).
        messages: What Argo says of a step, by task.
        ranking: What select said of the runs' models, as its leaderboard's metadata; None for no leaderboard.
        is_ui: Whether this is the address of the UI: it leads to the metadata store too, and to logs by another path
            than the API (frontend/server/app.ts).
        has_workflows: Whether the version v1beta1 of the API is there.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        """Starts the server; with a certificate (its key in the same file) it speaks HTTPS."""
        self.token = ""
        self.multi_user = False
        self.steps: Steps = WHOLE_RUN
        self.error = ""
        self.refuses_runs = ""
        self.faults: list[int] = []
        self.on_get: Callable[[], None] = lambda: None
        self.ranking: Object | None = None
        self.logs: dict[str, str] = {}
        self.messages: dict[str, str] = {}
        self.is_ui = True
        self.has_workflows = True
        self._experiments: dict[str, Object] = {}
        self._runs: dict[str, _Run] = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "https" if certificate else "http"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def experiments(self) -> list[Object]:
        return list(self._experiments.values())

    @property
    def runs(self) -> list[Object]:
        """The runs as they were asked for."""
        return [run.body for run in self._runs.values()]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, query: dict[str, str], body: Object | None) -> Object:
        """Answers one request.

        Raises:
            Refused: When it is refused.
        """
        parts = path.removeprefix(PREFIX).strip("/").split("/")
        with self._lock:
            match (method, *parts):
                case ("GET", "healthz"):
                    return {"multi_user": self.multi_user}
                case ("GET", "experiments"):
                    return {"experiments": self._selected(query)}
                case ("POST", "experiments"):
                    return self._create_experiment(body or {})
                case ("GET", "experiments", identifier):
                    return self._experiment(identifier)
                case ("POST", "runs"):
                    return self._create_run(body or {})
                case ("GET", "runs", identifier):
                    self.on_get()
                    if self.faults:
                        raise Refused(self.faults.pop(0), "a fault of the test")
                    return self._progress(identifier)
        raise Refused(404, "Not Found")

    def metadata(self, method: str, request: bytes) -> bytes:
        """Answers one call of the metadata store, as gRPC-Web: a frame with the answer, and one with the trailers.

        Raises:
            Refused: When there is no such call.
        """
        asked = MESSAGES.get(f"{method}Request")
        if asked is None or not self.is_ui:
            raise Refused(404, "Not Found")
        asked = asked.FromString(request[5:])
        answer = MESSAGES[f"{method}Response"]()
        contexts = {number: run_id for number, run_id in enumerate(self._runs, start=7)}
        if method == "GetContextByTypeAndName":
            if asked.type_name != "system.PipelineRun" or asked.context_name not in self._runs:
                return framed(b"grpc-status:5\r\ngrpc-message:no such context\r\n", flags=0x80)
            answer.context.id = next(number for number, run_id in contexts.items() if run_id == asked.context_name)
        elif asked.context_id in contexts and self.ranking is not None:
            answer.artifacts.add(id=1).custom_properties.add(key="display_name")
            entry = answer.artifacts.add(id=2).custom_properties.add(key="ranking")
            entry.value.struct_value.update({"struct": self.ranking})
        return framed(answer.SerializeToString()) + framed(b"grpc-status:0\r\n", flags=0x80)

    def _selected(self, query: dict[str, str]) -> list[Object]:
        if self.multi_user and not query.get("namespace"):
            raise Refused(400, "Invalid input error: ListExperiments in multi-user mode requires a namespace")
        wanted = {
            predicate["key"]: predicate.get("stringValue", predicate.get("string_value"))
            for predicate in json.loads(query.get("filter", "{}")).get("predicates", [])
        }
        return [
            experiment
            for experiment in self._experiments.values()
            if all(experiment[key] == value for key, value in wanted.items())
        ]

    def _create_experiment(self, body: Object) -> Object:
        if not body.get("display_name"):
            raise Refused(400, "Invalid input error: Experiment name is empty. Please specify a valid experiment name")
        experiment = {**body, "experiment_id": str(uuid.uuid4()), "created_at": _now()}
        self._experiments[experiment["experiment_id"]] = experiment
        return experiment

    def _experiment(self, identifier: str) -> Object:
        if identifier not in self._experiments:
            raise Refused(404, f"Experiment {identifier} not found")
        return self._experiments[identifier]

    def _create_run(self, body: Object) -> Object:
        self._experiment(body.get("experiment_id", ""))
        self._check(body)
        run = {**body, "run_id": str(uuid.uuid4()), "created_at": _now(), "state": "PENDING"}
        self._runs[run["run_id"]] = _Run(run, self.steps, error=self.error)
        return run

    def _check(self, body: Object) -> None:
        if self.refuses_runs:
            raise Refused(400, self.refuses_runs)
        document = body.get("pipeline_spec") or {}
        try:
            spec = json_format.ParseDict(document.get("pipeline_spec", document), pipeline_spec_pb2.PipelineSpec())
        except json_format.ParseError as error:
            raise Refused(400, f"Invalid input error: unknown template format: {error}") from None
        known = spec.root.input_definitions.parameters
        given = (body.get("runtime_config") or {}).get("parameters") or {}
        for name in given:
            if name not in known:
                raise Refused(400, f"Invalid input error: parameter {name} is not defined in the pipeline")
        for name, definition in known.items():
            if not (name in given or definition.is_optional or definition.HasField("default_value")):
                raise Refused(400, f"Invalid input error: parameter {name} is required")

    def workflow(self, identifier: str) -> Object:
        """GET /apis/v1beta1/runs/ID: toApiRunDetailV1 in backend/src/apiserver/server/api_converter.go."""
        run = self._run(identifier)
        if not self.has_workflows:
            raise Refused(404, "Not Found")
        shown = json.dumps(self._workflow(run)) if run.seen >= 0 else ""
        return {"run": {"id": identifier}, "pipeline_runtime": {"workflow_manifest": shown} if shown else {}}

    def log(self, identifier: str, pod: str) -> str:
        """What a pod has printed: ReadLog in backend/src/apiserver/resource/resource_manager.go."""
        run = self._run(identifier)
        for node, name in pods(self._workflow(run)).items():
            if name == pod:
                task = re.sub(r"\(\d+\)", "", node).split(".")[-2]
                turn = re.search(r"iteration-iterations\((\d+):", node)
                return self.logs.get(f"{task}#{int(turn[1]) + 1}" if turn else task, self.logs.get(task, ""))
        return json.dumps({"error_message": f"Failed to read logs for run {identifier}", "error_details": "..."})

    def _run(self, identifier: str) -> _Run:
        if identifier not in self._runs:
            raise Refused(404, f"Run {identifier} not found")
        return self._runs[identifier]

    def _workflow(self, run: _Run) -> Object:
        document = run.body["pipeline_spec"]
        _, tasks = run.steps[max(run.seen, 0)]
        spec = document.get("pipeline_spec", document)
        return workflow(f"image-classification-{run.body['run_id'][:5]}", spec, tasks, self.messages)

    def _progress(self, identifier: str) -> Object:
        run = self._run(identifier)
        run.seen = min(run.seen + 1, len(run.steps) - 1)
        state, _ = run.steps[run.seen]
        # toApiPipelineTaskDetail in backend/src/apiserver/server/api_converter.go: every node of the workflow, by the
        # name that Argo shows, with no pod and no error.
        states = {"Pending": "PENDING", "Running": "RUNNING", "Succeeded": "SUCCEEDED", "Failed": "FAILED"}
        details = [
            {
                "run_id": identifier,
                "task_id": str(uuid.uuid5(uuid.NAMESPACE_OID, node["id"])),
                "display_name": node["displayName"],
                "create_time": run.body["created_at"],
                "start_time": node["startedAt"],
                "state": states.get(node["phase"], "SKIPPED"),
            }
            for node in self._workflow(run)["status"]["nodes"].values()
        ]
        answer = {**run.body, "state": state, "run_details": {"task_details": details}}
        if state == "FAILED" and run.error:
            answer["error"] = {"code": 13, "message": run.error}
        return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    api: KfpApi

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that does not trust the certificate, or is gone


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        split = urllib.parse.urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = self.server.api.token
        try:
            if token and self.headers.get("Authorization") != f"Bearer {token}":
                raise Refused(401, "Request header error: there is no user identity header")
            if split.path.startswith(f"/{SERVICE}/"):
                self._send(200, self.server.api.metadata(split.path.rsplit("/", 1)[1], content))
                return
            query = dict(urllib.parse.parse_qsl(split.query))
            api, parts = self.server.api, split.path.strip("/").split("/")
            match (api.is_ui, *parts):
                case (_, "apis", "v1beta1", "runs", run_id):
                    self._send(200, api.workflow(run_id))
                    return
                case (False, "apis", "v1alpha1", "runs", run_id, "nodes", pod, "log"):
                    self._send(200, api.log(run_id, pod).encode(), "text/plain")
                    return
                case (True, "k8s", "pod", "logs"):
                    self._send(200, api.log(query["runid"], query["podname"]).encode(), "text/plain")
                    return
            answer = self.server.api.answer(self.command, split.path, query, json.loads(content) if content else None)
            self._send(200, answer)
        except Refused as error:
            self._send(error.code, {"error": error.message, "code": 3, "message": error.message, "details": []})

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _send(self, code: int, answer: Object | bytes, kind: str = "") -> None:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(code)
        kind = kind or ("application/grpc-web+proto" if isinstance(answer, bytes) else "application/json")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
