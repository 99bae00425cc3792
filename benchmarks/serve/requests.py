"""What the servers are asked in benchmarks: images of noise, which every model from train takes."""

import base64
import io
import json
import random

from PIL import Image


def noise_png(side: int, seed: int) -> bytes:
    """A grey image that every model from train takes."""
    content = io.BytesIO()
    Image.frombytes("L", (side, side), random.Random(seed).randbytes(side * side)).save(content, "PNG")
    return content.getvalue()


def v1_body(files: list[bytes]) -> bytes:
    """A request of KServe's V1 protocol."""
    return json.dumps({"instances": [{"b64": base64.b64encode(file).decode()} for file in files]}).encode()


def v2_raw(files: list[bytes], side: int) -> tuple[bytes, dict[str, str]]:
    """A request of KServe's V2 protocol with the images' pixels as raw bytes: its body and headers."""
    raw = b"".join(Image.open(io.BytesIO(file)).tobytes() for file in files)
    tensor = {"name": "pixels", "shape": [len(files), side, side, 1], "datatype": "UINT8"}
    header = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}]}).encode()
    return header + raw, {"inference-header-content-length": str(len(header))}
