"""The launchers against a live cluster: submit, adopt, cancel. `pytest -m cluster`, with a kubeconfig.

Nothing has to be in the cluster but the operator. By default the workers' image cannot be pulled, so that no pod ever
starts; with WORKER_IMAGE set to one that can, and TEST_PVC to a claim that is mounted at STORAGE_PATH here as well, a
model is trained.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes.client import ApiException, CustomObjectsApi
from log_lines import LogLines
from skips import Need, skip, skip_unless
from training_operator import KINDS

from kfp_image_classification.components.cluster.kubernetes_client import api_client, own_namespace
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.step.errors import InvalidInput, checked
from kfp_image_classification.components.train.launchers.job_kind import JobKind
from kfp_image_classification.components.train.launchers.job_options import JobOptions
from kfp_image_classification.components.train.launchers.kubernetes_launcher import KubernetesLauncher
from kfp_image_classification.components.train.launchers.pod_template import PodTemplate, TaskSettings
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.run_job import job_directory, run_job

pytestmark = pytest.mark.cluster


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> JobKind:
    """A kind of job that the cluster knows."""
    kind = KINDS[request.param]
    try:
        jobs = CustomObjectsApi(api_client())
        jobs.list_namespaced_custom_object(
            kind.group, kind.version, own_namespace(), kind.plural, limit=1, _request_timeout=10
        )
    except InvalidInput as error:
        skip(Need.CLUSTER, str(error))
    except ApiException as error:
        skip(Need.CLUSTER, f"the cluster does not serve {kind.plural}.{kind.group}: HTTP {error.status}")
    except OSError as error:
        skip(Need.CLUSTER, f"the cluster does not answer: {error}")
    except Exception as error:
        if "urllib3" not in type(error).__module__:
            raise
        skip(Need.CLUSTER, f"the cluster does not answer: {error}")
    return kind


class Job:
    """Launchers of one job, which is deleted in the end."""

    def __init__(self, kind: JobKind) -> None:
        self.kind, self.client = kind, api_client()
        self.name = f"train-test-{uuid.uuid4().hex[:10]}"
        self.launchers: list[KubernetesLauncher] = []

    def launcher(self, log: LogLines, **change: object) -> KubernetesLauncher:
        options = TrainOptions(
            model_type="cnn", workers=2, epochs=1, batch_size=32, learning_rates="0:1e-3", seed=0, backend="auto"
        )
        job = TrainingJob(options=options, dataset="/mnt/storage/d", directory="/mnt/storage/j")
        flat = {"worker_image": "localhost/no-such-image:1", "worker_cpu": "10m", "worker_memory": "16Mi", **change}
        pods = PodTemplate(job, checked(JobOptions, **flat, job={"start_seconds": 20}), TaskSettings())
        self.launchers.append(KubernetesLauncher(self.client, self.kind, self.name, pods, log.logger))
        return self.launchers[-1]

    def exists(self) -> bool:
        try:
            CustomObjectsApi(self.client).get_namespaced_custom_object(
                self.kind.group, self.kind.version, own_namespace(), self.kind.plural, self.name
            )
        except ApiException as error:
            if error.status != 404:
                raise
            return False
        return True


@pytest.fixture
def job(kind: JobKind) -> Iterator[Job]:
    job = Job(kind)
    yield job
    for launcher in job.launchers:
        launcher.cancel()


def test_submit_adopt_refuse_cancel(job: Job) -> None:
    log = LogLines()
    job.launcher(log).submit()
    job.launcher(log).submit()
    assert "adopted" in log.text
    with pytest.raises(InvalidInput, match="is there already with a different spec"):
        job.launcher(log, worker_cpu="20m").submit()
    assert job.exists()
    job.launchers[0].cancel()
    assert not job.exists()


def test_job_that_can_never_start_fails_with_the_reason(job: Job) -> None:
    log = LogLines()
    launcher = job.launcher(log)
    launcher.submit()
    verdict = launcher.wait()
    assert verdict.state == "failed"
    assert "start_seconds = 20" in verdict.reason
    launcher.cancel()
    assert not job.exists()


@skip_unless(
    {"WORKER_IMAGE", "TEST_PVC", "STORAGE_PATH"} <= set(os.environ),
    Need.CLUSTER,
    "WORKER_IMAGE, TEST_PVC and STORAGE_PATH are not set",
)
def test_trained_model(kind: JobKind, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN_ID", uuid.uuid4().hex)
    backend = next(name for name, known in KINDS.items() if known is kind)
    options = TrainOptions(
        model_type="cnn", workers=2, epochs=1, batch_size=32, learning_rates="0:1e-3", seed=0, backend=backend
    )
    directory = job_directory(options, str(digits.directory), tmp_path / "model", "")
    training = TrainingJob(options=options, dataset=str(digits.directory), directory=str(directory))
    given = JobOptions(worker_image=os.environ["WORKER_IMAGE"], pvc=os.environ["TEST_PVC"])
    done = run_job(training, tmp_path / "model", LogLines().logger, given)
    assert done.history[-1]["val_accuracy"] > 0.8
