"""Photographs to measure with: generated, 500 x 375 pixels, JPEG."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (500, 375)
SHAPE = (375, 500, 3)
CLASSES = 10


def photograph(number: int) -> bytes:
    """A picture of soft shapes under a camera's noise: about 66 KB."""
    random = np.random.default_rng(number)
    shapes = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    noisy = np.asarray(shapes).astype(np.int16) + random.integers(-12, 13, SHAPE, np.int16)
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_photographs(root: Path, count: int, distinct: int = 500) -> int:
    """Writes a folder of classes, of a few distinct photographs under many names; returns how many bytes they have."""
    written = 0
    for number in range(count):
        path = root / f"class-{number % CLASSES}" / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        first = number % distinct
        if number == first:
            path.write_bytes(photograph(number))
        else:
            os.link(root / f"class-{first % CLASSES}" / f"{first:07d}.jpg", path)
        written += path.stat().st_size
    return written
