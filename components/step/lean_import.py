"""Keeps optional packages from being loaded along with another: loading TensorFlow takes most of a short step's time.

TensorFlow loads Keras, which half of the stages do not use; Keras loads scikit-learn, pandas, matplotlib and more where
they are installed, for wrappers and pictures that no stage uses. All of them do without when they are not there.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def import_without(*packages: str) -> Iterator[None]:
    """Makes packages look absent while something else is imported; ones that are loaded already stay as they are."""
    absent = {name: None for name in packages if name not in sys.modules}
    # None is how Python marks a module that must not be found, which the type of `sys.modules` does not know.
    sys.modules.update(absent)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)
