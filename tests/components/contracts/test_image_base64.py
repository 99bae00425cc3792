"""Base64 as clients write it: what TensorFlow Serving takes, and nothing else."""

import base64

import pytest

from kfp_image_classification.components.contracts.image_base64 import from_base64

BYTES = bytes(range(256))  # all signs of the alphabet, and padding of two
WRITTEN = base64.b64encode(BYTES).decode()


@pytest.mark.parametrize(
    "text",
    [WRITTEN, WRITTEN[:-2], WRITTEN[:-2] + "..", f"\n{WRITTEN[:76]}\r\n {WRITTEN[76:]}\t", WRITTEN[:-2] + " =\n= "],
    ids=["plain", "unpadded", "dots", "lines", "spaced padding"],
)
def test_what_is_taken(text: str) -> None:
    assert from_base64(text) == BYTES


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (base64.urlsafe_b64encode(BYTES).decode(), "this is the alphabet for URLs"),
        (f"data:image/png;base64,{WRITTEN}", "this is a data URL"),
        (repr(WRITTEN.encode()), "this is how Python shows bytes"),
        (WRITTEN[:-1], "it is cut off, or its padding is wrong"),
        (WRITTEN[:-3], "it is cut off, or its padding is wrong"),
        ("A*==", r"'\*' is no digit of it"),
    ],
)
def test_what_is_not(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        from_base64(text)
