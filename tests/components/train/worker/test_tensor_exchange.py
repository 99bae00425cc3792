"""Tensors of two workers, each in a thread, over real sockets."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.train.exchange import ExchangeFailed, PeerLost
from kfp_image_classification.components.train.job_folder import claim_directory
from kfp_image_classification.components.train.launchers.machine import worker_ports
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.worker.devices import ComputeDevices
from kfp_image_classification.components.train.worker.tensor_exchange import TensorExchange, uses_sockets
from kfp_image_classification.components.train.worker.tf_config import cluster_from_environment

SHAPES = [(3, 5), (7,), ()]


@pytest.fixture
def job(digits: Dataset, train_options: TrainOptions, tmp_path: Path) -> TrainingJob:
    options = train_options.model_copy(update={"peer_seconds": 10})
    made = TrainingJob(options=options, dataset=str(digits.directory), directory=str(tmp_path / "job"))
    claim_directory(made)
    return made


@pytest.fixture
def both(job: TrainingJob) -> Callable[[Callable[[TensorExchange, int], Any]], list[Any]]:
    """Does the same in two workers that have met; returns what came of it in each."""
    addresses = [f"127.0.0.1:{port}" for port in worker_ports(2)]

    def do(work: Callable[[TensorExchange, int], Any]) -> list[Any]:
        def worker(index: int) -> Any:
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            exchange = TensorExchange.join(job, cluster_from_environment({"TF_CONFIG": json.dumps(config)}), 1, SHAPES)
            try:
                return work(exchange, index)
            finally:
                exchange.close()

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(worker, (0, 1)))

    return do


def summands(index: int) -> list[tf.Tensor]:
    random = np.random.default_rng(index)
    return [tf.constant(random.normal(size=shape), tf.float32) for shape in SHAPES]


@pytest.mark.parametrize("in_graph", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(tf.float32, 1e-6), (tf.bfloat16, 2e-2)])
def test_all_get_the_sum_in_every_step(
    in_graph: bool, dtype: tf.DType, tolerance: float, both: Callable[..., list[Any]]
) -> None:
    def work(exchange: TensorExchange, index: int) -> list[list[Any]]:
        def step(factor: tf.Tensor) -> list[tf.Tensor]:
            return exchange.sum([one * factor for one in summands(index)], dtype)

        function = tf.function(step) if in_graph else step
        # Copied, as the next step's sums lie where these do.
        return [[np.array(one) for one in function(tf.constant(factor))] for factor in (1.0, 2.0)]

    steps = both(work)
    for one, other in zip(*steps, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    for step, factor in zip(steps[0], (1.0, 2.0), strict=True):
        for total, first, second in zip(step, summands(0), summands(1), strict=True):
            assert total.dtype == np.float32
            np.testing.assert_allclose(total, (first + second) * factor, atol=factor * tolerance)


def test_other_types_are_summed_in_float32_and_keep_their_type(both: Callable[..., list[Any]]) -> None:
    def work(exchange: TensorExchange, index: int) -> tf.Tensor:
        return exchange.sum_one(tf.constant([index + 0.5], tf.bfloat16))

    for total in both(work):
        assert (total.dtype, float(total[0])) == (tf.bfloat16, 2.0)


def test_a_loss_inside_a_graph_can_be_told(both: Callable[..., list[Any]]) -> None:
    def work(exchange: TensorExchange, index: int) -> ExchangeFailed | None:
        if index == 1:
            exchange.close()
            return None
        with pytest.raises(tf.errors.OpError):
            tf.function(exchange.sum)(summands(index))
        return exchange.failure

    failure, _ = both(work)
    assert isinstance(failure, PeerLost)
    assert failure.peer == 1


def test_without_the_jobs_secret(both: Callable[..., list[Any]], job: TrainingJob) -> None:
    Path(job.directory, "exchange-token").unlink()
    with pytest.raises(InvalidInput, match="exchange-token: the secret by which .* or gives exchange = ring"):
        both(lambda *_: None)


CPU = ComputeDevices(gpus=0, shared=False, words="the CPU")
OWN_GPU = ComputeDevices(gpus=1, shared=False, words="1 GPU")
SHARED_GPU = ComputeDevices(gpus=1, shared=True, words="1 GPU shared with other workers")
OWN_GPUS = ComputeDevices(gpus=2, shared=False, words="2 GPUs")


@pytest.mark.parametrize(
    ("exchange", "workers", "devices", "expected"),
    [
        ("auto", 2, CPU, True),
        ("auto", 2, SHARED_GPU, True),
        ("auto", 2, OWN_GPU, False),
        ("auto", 2, OWN_GPUS, False),
        ("sockets", 2, CPU, True),
        ("sockets", 2, OWN_GPU, True),
        ("ring", 2, CPU, False),
        ("auto", 1, CPU, False),
        ("sockets", 1, CPU, False),
    ],
)
def test_which_sums_travel_through_sockets(
    exchange: str, workers: int, devices: ComputeDevices, expected: bool
) -> None:
    assert uses_sockets(exchange, workers, devices) is expected


def test_sockets_are_not_for_workers_with_several_gpus() -> None:
    with pytest.raises(InvalidInput, match="exchange = 'sockets': a worker with 2 GPUs sums over NCCL"):
        uses_sockets("sockets", 2, OWN_GPUS)
