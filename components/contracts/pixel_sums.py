"""How pixels are measured: by ingest, what a model learns from; by monitor, what it is asked about."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from kfp_image_classification.components.contracts.data_report import BINS, PixelReport


@dataclass
class PixelSums:
    """Sums over the pixels of images; whole numbers, so that they are the same in any order.

    Attributes:
        channels: 1 or 3.
    """

    channels: int
    images: int = 0
    pixels: int = 0
    sums: list[int] = field(default_factory=list)
    squares: list[int] = field(default_factory=list)
    brightness: list[int] = field(default_factory=lambda: [0] * BINS)
    contrast: list[int] = field(default_factory=lambda: [0] * BINS)

    def __post_init__(self) -> None:
        self.sums = self.sums or [0] * self.channels
        self.squares = self.squares or [0] * self.channels

    def measure(self, pixels: np.ndarray) -> None:
        """Adds one image, uint8 [height, width, channels], fitted."""
        # A third of the time that numpy takes to count, and a tenth of what it takes for sums of pixels and squares.
        picture = Image.fromarray(pixels[..., 0] if self.channels == 1 else pixels)
        counts = np.array(picture.histogram(), np.int64).reshape(self.channels, 256)
        sums, squares = counts @ np.arange(256), counts @ np.arange(256) ** 2
        mean = sums.sum() / pixels.size
        spread = float(np.sqrt(max(0.0, squares.sum() / pixels.size - mean * mean)))
        self.images += 1
        self.pixels += pixels.size // self.channels
        self.sums = [before + int(new) for before, new in zip(self.sums, sums, strict=True)]
        self.squares = [before + int(new) for before, new in zip(self.squares, squares, strict=True)]
        self.brightness[int(mean) * BINS // 256] += 1
        self.contrast[int(spread) * BINS // 256] += 1

    def add(self, other: "PixelSums") -> None:
        """Adds another's images."""
        self.images += other.images
        self.pixels += other.pixels
        for name in ("sums", "squares", "brightness", "contrast"):
            setattr(self, name, [a + b for a, b in zip(getattr(self, name), getattr(other, name), strict=True)])

    def report(self) -> PixelReport:
        means = [total / max(1, self.pixels) for total in self.sums]
        variances = [
            square / max(1, self.pixels) - mean * mean for square, mean in zip(self.squares, means, strict=True)
        ]
        return PixelReport(
            images=self.images,
            mean=[round(mean, 4) for mean in means],
            spread=[round(max(0.0, variance) ** 0.5, 4) for variance in variances],
            brightness=self.brightness,
            contrast=self.contrast,
        )
