"""KServe's stock TensorFlow Serving is 2.6.2, years older than the TensorFlow that exports. Can it load a model?

What these tests prove: every operation and every attribute in the exported graphs is one that TensorFlow 2.6.2 had
registered, and TensorFlow loads the graph into a session, as its server does, and answers alike. With
TENSORFLOW_2_6_PYTHON set to a Python 3.9 that has tensorflow-cpu 2.6.2, the same is done by that very version. The
server's own binary is not run.

`tensorflow_2_6_ops.txt` is the registry of tensorflow-cpu 2.6.2 (`TF_GetAllOpList`): a line an operation, with its
attributes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from skips import Need, skip_unless

from kfp_image_classification.components.contracts.model_card import MODEL_CARD, newest_version

HERE = Path(__file__).parent
PROGRAM = HERE / "load_saved_model.py"
OLD_PYTHON = os.environ.get("TENSORFLOW_2_6_PYTHON", "")
CLASSES = ["a", "b", "c"]


def registered() -> dict[str, set[str]]:
    lines = (line.split() for line in (HERE / "tensorflow_2_6_ops.txt").read_text().splitlines())
    return {name: set(attributes) for name, *attributes in lines}


def operations(saved_model: Path) -> Iterator[tuple[str, set[str]]]:
    """Each node's operation, with its attributes; those of functions included, calls of functions left out."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString((saved_model / "saved_model.pb").read_bytes())
    for meta_graph in saved.meta_graphs:
        library = meta_graph.graph_def.library
        functions = {function.signature.name for function in library.function}
        for node in [
            *meta_graph.graph_def.node,
            *(node for function in library.function for node in function.node_def),
        ]:
            if node.op not in functions:
                # Names with an underscore are hints, of which a runtime ignores those it does not know.
                yield node.op, {name for name in node.attr if not name.startswith("_")}


# The larger backbones take as long as all others together.
VARIANTS = {
    "cnn": (28, 28, 1),
    "cnn_small": (28, 28, 1),
    "cnn_dropout": (28, 28, 1),
    "cnn_batchnorm": (32, 32, 3),
    "resnet": (32, 32, 3),
    "mobilenet_v3_small": (32, 32, 3),
}
SLOW_VARIANTS = {name: (32, 32, 3) for name in ("efficientnet_v2_b0", "resnet50_v2", "convnext_tiny")}


@pytest.mark.parametrize(
    ("variant", "image_shape"),
    [*VARIANTS.items(), *(pytest.param(*item, marks=pytest.mark.slow) for item in SLOW_VARIANTS.items())],
)
def test_exported_graphs_have_only_what_tensorflow_2_6_knew(
    variant: str, image_shape: tuple[int, int, int], tmp_path: Path
) -> None:
    from kfp_image_classification.components.train.worker.export import save_served_graph
    from kfp_image_classification.components.train.worker.models import MODELS

    assert MODELS.keys() == VARIANTS.keys() | SLOW_VARIANTS.keys(), "test new variants, too"
    save_served_graph(MODELS[variant](image_shape, len(CLASSES)), image_shape, CLASSES, tmp_path)
    known, found = registered(), list(operations(tmp_path))
    assert [operation for operation, _ in found if operation not in known] == []
    assert [(operation, attributes) for operation, attributes in found if attributes - known[operation]] == []
    assert not [operation for operation, _ in found if "Variable" in operation], "the graph is frozen"


def test_the_list_is_that_of_an_older_tensorflow() -> None:
    known = registered()
    assert "Conv2D" in known
    assert "DisableCopyOnRead" not in known, "what a SavedModel that is not frozen has, and TensorFlow 2.6 cannot load"


@pytest.mark.parametrize(
    "python",
    [
        pytest.param(sys.executable, id="this TensorFlow"),
        pytest.param(
            OLD_PYTHON,
            id="TensorFlow 2.6",
            marks=skip_unless(OLD_PYTHON, Need.PYTHON, "TENSORFLOW_2_6_PYTHON is not set"),
        ),
    ],
)
def test_exported_model_answers_alike_in_a_session(trained: SimpleNamespace, python: str) -> None:
    version = newest_version(trained.model)
    # A Python of its own: without this one's paths.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    told = subprocess.run(
        [python, PROGRAM, version, version / MODEL_CARD], check=True, capture_output=True, text=True, env=alone
    )
    answer = json.loads(told.stdout.splitlines()[-1])
    assert answer["difference"] < 1e-4
    assert answer["tensorflow"].startswith("2.6." if python == OLD_PYTHON else "2.")
