"""What of the deployed model a training needs that begins with it: its Keras model, and its card."""

import shutil
from pathlib import Path

from kfp_image_classification.components.contracts.model_card import KERAS_MODEL, MODEL_CARD, newest_version
from kfp_image_classification.components.step.errors import StageFailed


def copy_for_training(champion: Path, output: Path) -> bool:
    """Copies what a training needs.

    Args:
        champion: The folder of the model; or a note that there is none.
        output: The folder to copy to.

    Returns:
        Whether it was there.
    """
    try:
        card = newest_version(champion) / MODEL_CARD
    except StageFailed:
        return False
    if not (card.is_file() and (champion / KERAS_MODEL).is_file()):
        return False
    for file in (champion / KERAS_MODEL, card):
        copy = output / file.relative_to(champion)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return True
