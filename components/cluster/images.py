"""The container images in which the components run on a cluster (see `images/`)."""

import os

# This package's, as in pyproject.toml: where it is on PYTHONPATH alone, nothing else knows it.
VERSION = "0.1.0"
# Set when compiling for another registry or tag: IMAGE_PREFIX=registry.example.com/team/ IMAGE_TAG=1.2 make compile
_PREFIX = os.environ.get("IMAGE_PREFIX", "kfp-image-classification/")
_TAG = os.environ.get("IMAGE_TAG", VERSION)

# kfp.local warns about images without "python" in their names, which are run in this Python all the same.
TENSORFLOW_IMAGE = f"{_PREFIX}python-tensorflow:{_TAG}"
# The same with NVIDIA's libraries, three times its size; for workers that have GPUs.
TENSORFLOW_GPU_IMAGE = f"{_PREFIX}python-tensorflow-gpu:{_TAG}"
LAUNCHER_IMAGE = f"{_PREFIX}python-launcher:{_TAG}"
SERVER_IMAGE = f"{_PREFIX}python-server:{_TAG}"
# For models that ONNX Runtime cannot serve; everything else is better off with the other, a seventh of its size.
SERVER_TENSORFLOW_IMAGE = f"{_PREFIX}python-server-tensorflow:{_TAG}"
# Keeps payload logs; the model server needs neither the packages for buckets nor those for Parquet.
COLLECTOR_IMAGE = f"{_PREFIX}python-collector:{_TAG}"
