"""Runs a component's own command as the launcher of Kubeflow Pipelines 2.17 runs it in a step's pod, by its rules.

Read in kubeflow/pipelines at 2.17.0, under backend/src/v2:

- driver/driver.go, provisionOutputs: an output's URI is ROOT/PIPELINE/RUN/TASK/ID/NAME.
- component/launcher_v2.go, downloadArtifacts, execute, collectOutputParameters, uploadOutputArtifacts, in this order;
  an output that the component left no files for is recorded all the same.
- component/launcher_v2.go, mergeRuntimeArtifacts: what the component says of an output's URI, it gets.
- objectstore/config.go, Config.KeyFromURI: and is then refused when that is not under the run's prefix.
- objectstore/object_store.go, UploadBlob: files alone are uploaded, by their folders' names; a link to a folder, which
  ReadDir does not call one, is opened as a file, and fails.
- metadata/converter.go, StructValueToMLMDValue and toRuntimeArtifact: a step finds numbers as doubles and truth as 1 or
  0, a null is refused, and an artifact's name is a number.
"""

import json
import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEME = "minio://"
ROOT = f"{SCHEME}mlpipeline/v2/artifacts"
SESSION = '{"Provider":"minio","Params":{"fromEnv":"false","secretName":"mlpipeline-minio-artifact"}}'
# KFP finds an artifact's files under /minio, which a test may not write to.
REDIRECT = """
import os
os.environ["PYTHONPATH"] = os.environ.pop("PYTHONPATH_OF_THE_TEST")
import kfp.dsl.types.artifact_types
kfp.dsl.types.artifact_types._MINIO_LOCAL_MOUNT_PREFIX = os.environ["MINIO_MOUNT"] + "/"
"""

Artifact = dict[str, Any]


class Refused(Exception):
    """The launcher fails the step, though the component succeeded; or the component failed."""


@dataclass
class Run:
    """One run of a pipeline.

    Attributes:
        store: A folder that stands for the artifact store; runs share it.
        scratch: A folder in which each step gets a folder of its own, as its pod has one.
        pipeline: The pipeline's name.
        id: The run's id.
        printed: What the last step printed.
    """

    store: Path
    scratch: Path
    pipeline: str = "image-classification"
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    printed: str = ""

    @property
    def prefix(self) -> str:
        return f"{ROOT}/{self.pipeline}/{self.id}"

    def step(self, component: Any, artifacts: dict[str, list[Artifact]] | None = None, **parameters: Any) -> "Step":
        """Runs a component.

        Args:
            component: A KFP component.
            artifacts: Its input artifacts, as other steps recorded them.
            parameters: Its input parameters.

        Raises:
            Refused: In the launcher's words, or with what the component printed.
        """
        spec = component.component_spec
        pod = self.scratch / f"{spec.name}-{uuid.uuid4().hex[:8]}"
        mount = pod / "minio"
        mount.mkdir(parents=True)
        outputs = {
            name: _runtime_artifact(
                "", output.type.split("@")[0], f"{self.prefix}/{spec.name}/{uuid.uuid4()}/{name}", {}
            )
            for name, output in (spec.outputs or {}).items()
            if "." in output.type
        }
        results = {name: pod / "parameters" / name for name in (spec.outputs or {}) if name not in outputs}
        for artifact in [one for several in (artifacts or {}).values() for one in several]:
            self._download(artifact["uri"], _local_path(mount, artifact["uri"]))
        for output in outputs.values():
            _local_path(mount, output["uri"]).parent.mkdir(parents=True)
        executor_input = {
            "inputs": {
                "parameterValues": parameters,
                "artifacts": {name: {"artifacts": several} for name, several in (artifacts or {}).items()},
            },
            "outputs": {
                "parameters": {name: {"outputFile": str(path)} for name, path in results.items()},
                "artifacts": {name: {"artifacts": [output]} for name, output in outputs.items()},
                "outputFile": str(pod / "output_metadata.json"),
            },
        }
        self._execute(spec, executor_input, pod, mount)
        output_file = json.loads((pod / "output_metadata.json").read_text())
        told, given = output_file.get("artifacts", {}), output_file.get("parameterValues", {})
        recorded = {}
        for name, output in outputs.items():
            merged = _merged(output, (told.get(name) or {}).get("artifacts", [{}])[0])
            self._upload(name, merged["uri"], _local_path(mount, merged["uri"]))
            recorded[name] = _recorded(merged)
        texts = {name: path.read_text() for name, path in results.items() if path.exists()}
        is_text = {name: spec.outputs[name].type == "String" for name in texts}
        files = {name: text if is_text[name] else json.loads(text) for name, text in texts.items()}
        return Step(recorded, {**files, **given})

    def _execute(self, spec: Any, executor_input: dict[str, Any], pod: Path, mount: Path) -> None:
        container = spec.implementation.container
        arguments = [json.dumps(executor_input) if one == "{{$}}" else one for one in container.args]
        redirect = pod / "redirect"
        redirect.mkdir()
        (redirect / "sitecustomize.py").write_text(REDIRECT)
        before = os.environ.get("PYTHONPATH", "")
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{redirect}:{before}",
            "PYTHONPATH_OF_THE_TEST": before,
            "MINIO_MOUNT": str(mount),
            "PYTHONUNBUFFERED": "1",
        }
        # Into a file: a server that the component leaves running would keep a pipe open.
        with (pod / "log").open("w+") as log:
            done = subprocess.run(
                [*container.command, *arguments], env=environment, cwd=pod, stdout=log, stderr=log, check=False
            )
        self.printed = (pod / "log").read_text()
        if done.returncode:
            raise Refused(f"{spec.name} ended with exit code {done.returncode}: {self.printed}")

    def _download(self, uri: str, local: Path) -> None:
        stored = self.store / uri.removeprefix(SCHEME)
        if stored.is_dir():
            shutil.copytree(stored, local, dirs_exist_ok=True)
        elif stored.is_file():
            local.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(stored, local)

    def _upload(self, name: str, uri: str, local: Path) -> None:
        if not uri.startswith(self.prefix):
            raise Refused(
                f'failed to upload output artifact "{name}": URI "{uri}" does not have expected bucket prefix '
                f'"{self.prefix}"'
            )
        if not uri.removeprefix(self.prefix).strip("/"):
            raise Refused(f'URI "{uri}" has empty key given prefixed bucket "{self.prefix}"')
        if not local.exists():
            return
        for file in [local] if local.is_file() else sorted(local.rglob("*")):
            if file.is_symlink() and file.is_dir():
                raise Refused(f'failed to upload output artifact "{name}": read {file}: is a directory')
            if file.is_file():
                stored = self.store / uri.removeprefix(SCHEME) / file.relative_to(local)
                stored.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, stored)


@dataclass(frozen=True)
class Step:
    """A step that succeeded.

    Attributes:
        artifacts: Its output artifacts by name, as a later step finds them.
        parameters: Its output parameters by name.
    """

    artifacts: dict[str, Artifact]
    parameters: dict[str, Any]


def _local_path(mount: Path, uri: str) -> Path:
    return mount / uri.removeprefix(SCHEME)


def _runtime_artifact(name: str, schema: str, uri: str, metadata: dict[str, Any]) -> Artifact:
    return {"name": name, "type": {"schemaTitle": schema}, "uri": uri, "metadata": metadata}


def _merged(output: Artifact, told: Artifact) -> Artifact:
    return {
        **output,
        "uri": told.get("uri") or output["uri"],
        "metadata": {**output["metadata"], **(told.get("metadata") or {})},
    }


def _recorded(artifact: Artifact) -> Artifact:
    metadata = {name: _value(name, value) for name, value in artifact["metadata"].items()}
    metadata["store_session_info"] = SESSION
    return _runtime_artifact(str(uuid.uuid4().int % 1000), artifact["type"]["schemaTitle"], artifact["uri"], metadata)


def _value(name: str, value: Any) -> Any:
    if value is None:
        raise Refused(
            f"unable to produce MLMD artifact: {name}: unknown/unsupported value type *structpb.Value_NullValue"
        )
    if isinstance(value, bool):
        return float(value)
    # Inside lists and structs everything stays as JSON has it, which knows no whole numbers.
    return json.loads(json.dumps(value), parse_int=float) if not isinstance(value, int) else float(value)
