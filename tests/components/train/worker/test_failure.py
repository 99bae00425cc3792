"""Whose failure an error is: only what a peer's loss is called one. Real workers train models that fail."""

import json
from pathlib import Path

import pytest
import tensorflow as tf
from log_lines import LogLines
from patched_workers import patch_workers

from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.step.errors import StageFailed
from kfp_image_classification.components.train.options import TrainingJob, TrainOptions
from kfp_image_classification.components.train.run_job import run_job
from kfp_image_classification.components.train.worker import steps
from kfp_image_classification.components.train.worker.failure import in_full, in_short, is_loss_of_peer

SOCKET_CLOSED = (
    "Graph execution error:\n\nDetected at node while/fused_adam/CollectiveReduceV2 defined at (most recent call last):"
    "\n"
    '  File "<frozen runpy>", line 198, in _run_module_as_main\n\n'
    "Collective ops is aborted by: Socket closed\nAdditional GRPC error information from remote target "
    "/job:worker/replica:0/task:1 while calling /tensorflow.WorkerService/RecvBuf:\n"
    "The error could be from a previous operation. Restart your program to reset.\n"
    "\t [[{{node while/fused_adam/CollectiveReduceV2}}]] [Op:__inference_train_steps_762]"
)
REMOTE = "Additional GRPC error information from remote target /job:worker/replica:0/task:1 while calling GetStatus"
CUBLAS = "failed to create cublas handle: the resource allocation failed\n\t [[{{node dense/MatMul}}]]"
STRING = (
    "During Variant Host->Device Copy: non-DMA-copy attempted of tensor type: string "
    "[[map/TensorArrayUnstack/TensorListFromTensor]]"
)
OOM = "Out of memory while trying to allocate 17179869184 bytes.\n\t [[{{node StatefulPartitionedCall}}]]"


# As an H100 had it: the only line in it is ours.
OUR_LINE = (
    "Graph execution error:\n\nDetected at node StatefulPartitionedCall defined at (most recent call last):\n"
    f'  File "{steps.__file__}", line 127, in <lambda>\n\n'
    "Out of memory while trying to allocate 97.67GiB.\n\t [[{{node StatefulPartitionedCall}}]]"
)


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (tf.errors.UnavailableError(None, None, SOCKET_CLOSED), True),
        (tf.errors.AbortedError(None, None, "Collective ops is aborted by: task 1 has failed"), True),
        (tf.errors.DeadlineExceededError(None, None, "Collective has timed out"), True),
        (tf.errors.CancelledError(None, None, "[_Derived_] RecvAsync is cancelled."), True),
        (tf.errors.InternalError(None, None, f"RST_STREAM closed stream\n{REMOTE}"), True),
        (tf.errors.UnknownError(None, None, f"Stream removed\n{REMOTE}"), True),
        (tf.errors.FailedPreconditionError(None, None, "Device /job:worker current incarnation doesn't match"), True),
        (tf.errors.InternalError(None, None, "NCCL: remote process exited or there was a network error."), True),
        (tf.errors.InternalError(None, None, "NCCL: unhandled cuda error. Set NCCL_DEBUG=WARN for detail."), False),
        (tf.errors.InternalError(None, None, CUBLAS), False),
        (tf.errors.InvalidArgumentError(None, None, STRING), False),
        (tf.errors.ResourceExhaustedError(None, None, OOM), False),
        (tf.errors.UnknownError(None, None, "RuntimeError: from the user's function"), False),
        (tf.errors.UnimplementedError(None, None, "no kernel"), False),
        (tf.errors.FailedPreconditionError(None, None, "Could not find variable dense/kernel"), False),
        (tf.errors.DataLossError(None, None, "truncated record at 1234"), False),
        (ValueError("shapes do not match"), False),
        (ConnectionResetError("a server of the user's own"), False),
        (MemoryError(), False),
    ],
    ids=lambda value: f"{type(value).__name__}: {str(value)[:30]}" if isinstance(value, Exception) else None,
)
def test_only_the_loss_of_a_peer_is_called_one(error: Exception, is_lost: bool) -> None:
    assert is_loss_of_peer(error, workers=2) == is_lost
    assert not is_loss_of_peer(error, workers=1), "there is nobody to lose"


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (
            tf.errors.UnavailableError(None, None, SOCKET_CLOSED),
            "UnavailableError in operation while/fused_adam/CollectiveReduceV2: "
            "Collective ops is aborted by: Socket closed",
        ),
        (
            tf.errors.InternalError(None, None, CUBLAS),
            "InternalError in operation dense/MatMul: failed to create cublas handle: the resource allocation failed",
        ),
        (tf.errors.UnknownError(None, None, ""), "UnknownError: no reason given"),
        (
            tf.errors.InternalError(None, None, "2 root error(s) found.\n  (0) INTERNAL: a\n  (1) INTERNAL: b"),
            "InternalError: (0) INTERNAL: a",
        ),
        (KeyError("no such layer"), "KeyError: no such layer"),
        (
            tf.errors.ResourceExhaustedError(None, None, OUR_LINE),
            "ResourceExhaustedError in the step that XLA compiled: Out of memory while trying to allocate 97.67GiB",
        ),
        (
            tf.errors.InvalidArgumentError(
                None,
                None,
                "\x1b[1m{{function_node __wrapped__Reshape_device_/job:worker/"
                "replica:0/task:0/device:CPU:0}} Input has 6144 values [Op:Reshape]\x1b[0m",
            ),
            "InvalidArgumentError: Input has 6144 values [Op:Reshape]",
        ),
        (
            ValueError("Exception encountered when calling Wrong.call().\n\n\x1b[1mtoo small\x1b[0m\n\nArguments ..."),
            "ValueError: too small",
        ),
    ],
    ids=["peer", "cublas", "silent", "two roots", "key", "memory of a GPU", "eager", "keras"],
)
def test_an_error_in_one_line(error: Exception, short: str) -> None:
    assert in_short(error) == short


def test_lack_of_memory_is_told_with_what_helps() -> None:
    told = in_full(tf.errors.ResourceExhaustedError(None, None, OOM))
    assert told.startswith(OOM)
    last = told.splitlines()[-1]
    assert last.startswith("error: the training failed, and would fail again: ResourceExhaustedError in ")
    assert last.endswith("; lower batch_size, or give the workers more memory")


# A user's own model in the place of `cnn`.
OWN_MODEL = "import own_model; loaded.MODELS['cnn'] = own_model.cnn"
MODEL = """
import json, os
import keras, tensorflow as tf
from keras import layers

wrong_on = os.environ["WRONG_ON"].split(",")
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]

class Own(layers.Layer):
    def call(self, x, training=False):
        if str(index) in wrong_on and training:
            {wrong}
        return x

def cnn(shape, classes):
    images = layers.Input(shape)
    x = Own()(layers.Dense(8, activation="relu")(layers.Flatten()(images)))
    return keras.Model(images, layers.Dense(classes)(x), name="cnn")
"""
GATHER = "x += tf.gather(tf.reshape(x, [-1]), tf.size(x) + 10)"
WRONG_INDEX = "InvalidArgumentError in operation while/cnn_1/own_1/GatherV2, {line}: indices = 266 is not"
RAISE = 'raise KeyError("the user was here")'
# The line of MODEL in which it stands.
LINE = MODEL.splitlines().index("            {wrong}") + 1


@pytest.mark.parametrize(
    ("wrong", "workers", "wrong_on", "reason"),
    [
        pytest.param(GATHER, 1, [0], WRONG_INDEX, marks=pytest.mark.slow),  # with two, there is more to get wrong
        (GATHER, 2, [0], WRONG_INDEX),
        pytest.param(RAISE, 1, [0], "KeyError in {line}: the user was here", marks=pytest.mark.slow),
        (RAISE, 2, [1], "KeyError in {line}: the user was here"),
    ],
    ids=["operation, alone", "operation of the chief", "call, alone", "call of a worker"],
)
def test_an_own_error_is_shown_whole_and_not_tried_again(
    wrong: str,
    workers: int,
    wrong_on: list[int],
    reason: str,
    digits: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patch_workers(tmp_path, monkeypatch, "models", OWN_MODEL)
    (tmp_path / "own_model.py").write_text(MODEL.format(wrong=wrong))
    monkeypatch.setenv("WRONG_ON", ",".join(map(str, wrong_on)))
    options = TrainOptions(model_type="cnn", workers=workers, epochs=2, batch_size=32, learning_rates="0:1e-3", seed=7)
    job = TrainingJob(options=options, dataset=str(digits.directory), directory=str(tmp_path / "job"))
    log = LogLines()
    with pytest.raises(StageFailed) as error:
        run_job(job, tmp_path / "model", log.logger)
    first, *_, last = str(error.value).splitlines()
    assert first == f"worker-{wrong_on[0]} exited with code 1; its last lines:"
    told = reason.format(line=f"line {LINE} of {tmp_path / 'own_model.py'}")
    assert last.strip().startswith(f"error: the training failed, and would fail again: {told}"), last
    assert "restart" not in log.text
    # Whole: the code that made the operation, or the call.
    assert f'File "{tmp_path / "own_model.py"}", line {LINE}, in call' in log.text
    lost = [line for _, line in log.lines if "another worker was lost" in line]
    assert len(lost) == workers - len(wrong_on), log.text
    assert json.loads((tmp_path / "job" / "attempts" / "0001.json").read_text())["number"] == 1
    assert not (tmp_path / "job" / "attempts" / "0002.json").exists()
