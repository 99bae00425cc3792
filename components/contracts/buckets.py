"""Which kinds of buckets there are, and how one is opened."""

import json
import logging
import os
from typing import Any

# What each kind of bucket needs, beside the package's own extra of that name, which installs it.
BUCKETS = {"s3": "s3fs", "gs": "gcsfs"}
# The content of a service account's key file.
GOOGLE_KEY = "GOOGLE_APPLICATION_CREDENTIALS_JSON"


class BucketUnusable(Exception):
    """A kind of bucket cannot be used from here; the message says why, and what to do."""


def open_buckets(scheme: str) -> Any:
    """Makes fsspec's file system of a kind of bucket.

    Args:
        scheme: One of `BUCKETS`.

    Raises:
        BucketUnusable: When its Python package is not installed, or Google's key cannot be read.
    """
    # Google's key is a file to its own libraries; from a Secret it comes as a variable.
    key = os.environ.get(GOOGLE_KEY) if scheme == "gs" else None
    # It tells errors with their tracebacks; whoever opens buckets tells them in words.
    logging.getLogger(BUCKETS[scheme]).setLevel(logging.CRITICAL)
    try:
        import fsspec

        # What is listed once is not listed again, and would only take memory.
        return fsspec.filesystem(
            scheme, skip_instance_cache=True, use_listings_cache=False, **({"token": json.loads(key)} if key else {})
        )
    except ImportError:
        raise BucketUnusable(
            f"{scheme}:// needs the Python package {BUCKETS[scheme]}; pip install 'kfp-image-classification[buckets]'"
        ) from None
    except ValueError:
        raise BucketUnusable(f"{GOOGLE_KEY} is no JSON; give it the content of a service account's key file") from None
