"""A home for Keras, in which what keras.applications downloads is kept; to be made before Keras is loaded."""

import contextlib
import os
from pathlib import Path

from kfp_image_classification.components.step.environment import PRETRAINED_VARIABLE

# What keras.applications calls its folder there.
MODELS = "models"


def keep_downloads(directory: Path) -> None:
    """Gives Keras a home in a folder, with the user's downloads in it and without their keras.json.

    They lie where the user's own Keras keeps them: in KERAS_HOME, else in ~/.keras; where that cannot be written, in
    the folder itself.

    Args:
        directory: The job's folder.
    """
    home = directory / "keras"
    home.mkdir(exist_ok=True)
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: a user without a home
        kept = Path(os.environ.get(PRETRAINED_VARIABLE) or Path.home() / ".keras", MODELS).expanduser().absolute()
        kept.mkdir(parents=True, exist_ok=True)
        if os.access(kept, os.W_OK) and not (home / MODELS).exists():
            (home / MODELS).symlink_to(kept)
    (home / MODELS).mkdir(exist_ok=True)
    os.environ["KERAS_HOME"] = str(home)
