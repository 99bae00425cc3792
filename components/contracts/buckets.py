"""Which kinds of buckets there are, how one is opened, and what went wrong with one."""

import json
import logging
import os
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A kind of bucket.

    Attributes:
        package: What it needs; the package's extra `buckets` installs it.
        credentials: Where they are taken from, in words.
    """

    package: str
    credentials: str


BUCKETS = {
    "s3": Kind(
        "s3fs",
        "credentials are taken from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or the machine's role, "
        "and another server than Amazon's from AWS_ENDPOINT_URL",
    ),
    "gs": Kind("gcsfs", "credentials are taken from GOOGLE_APPLICATION_CREDENTIALS, gcloud or the machine's account"),
}
# The content of a service account's key file.
GOOGLE_KEY = "GOOGLE_APPLICATION_CREDENTIALS_JSON"


class BucketUnusable(ValueError):
    """An address is of no bucket, or its kind cannot be used from here; the message says why, and what to do."""


def bucket_scheme(place: str) -> str:
    """The kind of bucket of an address, one of `BUCKETS`; empty for a path.

    Raises:
        BucketUnusable: When it is of a kind that nobody knows, or names no bucket.
    """
    scheme, separator, path = place.partition("://")
    if not separator:
        return ""
    expected = f"give a path, {' or '.join(f'{kind}://BUCKET/PATH' for kind in BUCKETS)}"
    if scheme not in BUCKETS:
        raise BucketUnusable(f"{scheme}:// is not known here; {expected}")
    if not path.partition("/")[0]:
        raise BucketUnusable(f"names no bucket; {expected}")
    return scheme


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
    logging.getLogger(BUCKETS[scheme].package).setLevel(logging.CRITICAL)
    try:
        import fsspec

        # What is listed once is not listed again, and would only take memory.
        return fsspec.filesystem(
            scheme, skip_instance_cache=True, use_listings_cache=False, **({"token": json.loads(key)} if key else {})
        )
    except ImportError:
        package = BUCKETS[scheme].package
        raise BucketUnusable(
            f"{scheme}:// needs the Python package {package}; pip install 'kfp-image-classification[buckets]'"
        ) from None
    except ValueError:
        raise BucketUnusable(f"{GOOGLE_KEY} is no JSON; give it the content of a service account's key file") from None


def reason(error: BaseException, scheme: str) -> str:
    """What an error of a kind of bucket says, in a line; each kind has errors of its own, and they share nothing."""
    if isinstance(error, BucketUnusable):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    words = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {words[0]}" if words else type(error).__name__
    if isinstance(error, TimeoutError):
        said = "no answer in time"
    return f"{said}; {BUCKETS[scheme].credentials}"
