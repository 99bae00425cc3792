"""What EXIF says of how the camera was held is applied by nobody: ingest and the server see the stored pixels.

One photograph with each note, asked of a real server by every protocol, beside what ingest made of the files: equal to
the bit.
"""

import base64
import json
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import grpc
import httpx
import numpy as np
import pytest
from cases.odd_images import encoded, exif, photograph, segment, with_exif
from PIL import Image

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.deploy.server.grpc_server import _kserve_messages
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sharding import write_dataset
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.step.stage_log import stage_log
from kfp_image_classification.components.train.launchers.machine import free_ports

NOTES = {
    **{f"{number}{order}{kind}": exif(number, order, kind) for number in range(1, 9) for order, kind in ("<H", ">I")},
    **{f"{number}{order}{kind}": exif(number, order, kind) for number, order, kind in product((0, 9), "<>", "HI")},
    "truncated": exif(6)[:20],
    "nothing": b"",
    "far": b"MM\0*\xff\xff\xff\xff",
    "no tiff": b"\xff" * 80,
}
PHOTO = Image.fromarray(photograph(48, 60))
STORED = {"jpg": encoded(PHOTO, "JPEG", quality=90), "png": encoded(PHOTO, "PNG")}


def files(kind: str) -> list[bytes]:
    noted = [with_exif(STORED[kind], note) for note in NOTES.values()]
    if kind == "jpg":
        noted.append(STORED[kind][:2] + segment(0xE1, b"Exif\0") + STORED[kind][2:])
        noted.append(with_exif(with_exif(STORED[kind], exif(3)), exif(6)))
    return [STORED[kind], *noted]


@pytest.fixture(scope="module")
def server(start_server, colour_model: Path) -> SimpleNamespace:
    port = free_ports(1)[0]
    return SimpleNamespace(url=start_server(colour_model, f"--grpc_port={port}").url, grpc=f"127.0.0.1:{port}")


def v1(server: SimpleNamespace, images: list[bytes]) -> np.ndarray:
    body = {"instances": [{"b64": base64.b64encode(image).decode()} for image in images]}
    answer = httpx.post(f"{server.url}/v1/models/digits:predict", json=body)
    assert answer.status_code == 200, answer.text
    return np.array([one["logits"] for one in answer.json()["predictions"]], np.float32)


def v2(server: SimpleNamespace, tensor: dict, raw: bytes) -> np.ndarray:
    given = {"name": "x", **tensor, "parameters": {"binary_data_size": len(raw)}}
    wanted = [{"name": "logits", "parameters": {"binary_data": True}}]
    header = json.dumps({"inputs": [given], "outputs": wanted}).encode()
    headers = {"inference-header-content-length": str(len(header))}
    answer = httpx.post(f"{server.url}/v2/models/digits/infer", content=header + raw, headers=headers)
    assert answer.status_code == 200, answer.text
    content = answer.content[int(answer.headers["inference-header-content-length"]) :]
    return np.frombuffer(content, "<f4").reshape(tensor["shape"][0], -1)


def v2_files(server: SimpleNamespace, images: list[bytes]) -> np.ndarray:
    raw = b"".join(len(image).to_bytes(4, "little") + image for image in images)
    return v2(server, {"datatype": "BYTES", "shape": [len(images)]}, raw)


def grpc_files(server: SimpleNamespace, images: list[bytes]) -> np.ndarray:
    messages = _kserve_messages()
    with grpc.insecure_channel(server.grpc) as channel:
        ask = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )
        given = {"name": "x", "datatype": "BYTES", "shape": [len(images)], "contents": {"bytes_contents": images}}
        request = messages.ModelInferRequest(model_name="digits", inputs=[given], outputs=[{"name": "logits"}])
        (output,) = ask(request, timeout=30).outputs
    return np.array(output.contents.fp32_contents, np.float32).reshape(len(images), -1)


@pytest.mark.parametrize("record_format", ["raw", "encoded"])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_every_protocol_sees_what_was_trained_on(
    server: SimpleNamespace, kind: str, record_format: str, tmp_path: Path
) -> None:
    images = files(kind)
    for split, name in product(("train", "test"), "ab"):
        (tmp_path / "in" / split / name).mkdir(parents=True)
        for index, content in enumerate(images if (split, name) == ("test", "a") else images[:2]):
            (tmp_path / "in" / split / name / f"{index}.{kind}").write_bytes(content)
    options = IngestOptions(
        dataset=f"image_folder:{tmp_path / 'in'}",
        validation_share=0.5,
        workers=1,
        seed=0,
        image_size=32,
        record_format=record_format,
    )
    write_dataset(open_source(options), options, tmp_path / "out", stage_log("test"))
    dataset = Dataset(tmp_path / "out")
    batches = records.read_batches(dataset, dataset.manifest.splits["test"].shards, 512)
    trained = np.concatenate([pixels.numpy() for pixels, _ in batches])
    assert len(trained) == len(images) + 2
    assert (trained == trained[0]).all()

    same = np.repeat(trained[:1], len(images), axis=0)
    pixels = {"datatype": "UINT8", "shape": [*same.shape]}
    expected = v2(server, pixels, same.tobytes())
    for asked in (v1, v2_files, grpc_files):
        assert np.array_equal(asked(server, images), expected), asked.__name__
    for turned in (np.rot90(same, axes=(1, 2)), same[:, ::-1], same[:, :, ::-1]):
        assert not np.array_equal(v2(server, pixels, np.ascontiguousarray(turned).tobytes()), expected)
