"""An exported graph runs on machines with GPUs: what handles strings, which live on CPUs alone, says so itself."""

from types import SimpleNamespace

from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.types_pb2 import DT_STRING, DT_VARIANT
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from kfp_image_classification.components.contracts.model_card import newest_version

# These only hand strings on, and have kernels that leave them in the host's memory wherever they are placed.
HANDED_ON = {"Identity", "Placeholder", "PartitionedCall", "StatefulPartitionedCall"}
# Decoders take strings without an attribute that says so.
DECODERS = {"DecodeImage", "DecodeJpeg", "DecodePng", "Substr"}


def handles_strings(node: NodeDef) -> bool:
    types = [value.type for value in node.attr.values()] + [
        one for value in node.attr.values() for one in value.list.type
    ]
    return node.op in DECODERS or DT_STRING in types or DT_VARIANT in types


def test_strings_stay_on_the_cpu(trained: SimpleNamespace) -> None:
    """A list of strings that is moved to a GPU ends each request: "non-DMA-copy attempted of tensor type: string"."""
    saved = SavedModel.FromString((newest_version(trained.model) / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    nodes = [node for function in functions if "traced" not in function.signature.name for node in function.node_def]
    placed = {node.op: node.device for node in nodes if handles_strings(node) and node.op not in HANDED_ON}
    assert {"DecodeJpeg", "DecodePng", "TensorListFromTensor", "While", "GatherV2"} <= placed.keys()
    # Of whatever host: a model that names the job of its training could be loaded nowhere else.
    assert set(placed.values()) == {"/device:CPU:0"}, placed


def test_arithmetic_goes_where_the_server_has_it_computed(trained: SimpleNamespace) -> None:
    saved = SavedModel.FromString((newest_version(trained.model) / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    assert {node.device for function in functions for node in function.node_def if node.op in ("Conv2D", "MatMul")} == {
        ""
    }
