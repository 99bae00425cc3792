"""Measures the model that is deployed now on the images of today, so that it meets new models on equal terms."""

from pathlib import Path

import tensorflow as tf

from kfp_image_classification.components.cluster.storage import in_use
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.contracts.evaluation import Evaluation, NoChampion
from kfp_image_classification.components.evaluate.measuring import evaluation_of, measure_split
from kfp_image_classification.components.evaluate.predictions import ServedModel
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed


def measured_champion(model_directory: Path, uri: str, dataset: Dataset, output: Path) -> Evaluation | NoChampion:
    """Shows a deployed model the validation images.

    Images of another size than the model's are made to fit by its own signature, as a client's are.

    Args:
        model_directory: Its files.
        uri: Where they lie for others.
        dataset: The data set of the new models.
        output: The folder of the evaluation.

    Returns:
        Its scores; or why it has none: it tells other classes apart, so no question fits both, or its files are not
        there or cannot be used, and then nothing shows that a new model is better.

    Raises:
        StageFailed: When the images are not there.
    """
    if not model_directory.is_dir() or not any(model_directory.iterdir()):
        return NoChampion(reason=f"there are no files of it at {uri}", holds_back=True)
    try:
        model = ServedModel(model_directory, dataset.manifest.class_names)
    except InvalidInput:
        return NoChampion(reason="it tells other classes apart than these")
    except (StageFailed, OSError, KeyError, ValueError, tf.errors.OpError) as error:
        return _unusable(error)
    try:
        with in_use(Path(dataset.manifest.root or dataset.directory)):
            measured = measure_split(model, dataset, "validation", output)
    except (KeyError, ValueError, tf.errors.OpError) as error:
        return _unusable(error)
    return evaluation_of(model_directory, uri, model, dataset, {"validation": measured})


def _unusable(error: Exception) -> NoChampion:
    return NoChampion(reason=f"it cannot be used ({str(error).splitlines()[0]})", holds_back=True)
