"""What a source lists that the deployed model was not trained on; no image is opened."""

import logging
from typing import NamedTuple

from kfp_image_classification.components.contracts.deployed_model import DeployedModel
from kfp_image_classification.components.ingest.options import IMAGE_FOLDER_PREFIX, IMAGE_LIST_PREFIX, IngestOptions
from kfp_image_classification.components.ingest.sources.opening import open_source

# What has another name has other content, and what has the same name the same.
GROWING = (IMAGE_FOLDER_PREFIX, IMAGE_LIST_PREFIX)


class NewData(NamedTuple):
    """What is new.

    Attributes:
        new_images: Images that the source has beyond those that the deployed model was trained on.
        known_images: Those, of all splits; 0 where nothing is deployed, or the model does not say.
        fingerprint: Of the data set that the deployed model was trained on; empty where it is not known.
    """

    new_images: int
    known_images: int
    fingerprint: str


def new_data(options: IngestOptions, deployed: DeployedModel | None, log: logging.Logger) -> NewData:
    """Compares the number of images that a source lists with that of the deployed model's data set.

    Args:
        options: Which source.
        deployed: What is known of the deployed model; None where nothing is deployed: all images are new then.
        log: Told what was found.

    Raises:
        InvalidInput: When the source cannot be listed, or ingest would refuse it.
    """
    if deployed is None:
        listed = _listed(options)
        log.info("%s has %s images, and no model is deployed yet: all are new", options.dataset, f"{listed:,}")
        return NewData(listed, 0, "")
    known, fingerprint = deployed.dataset_images, deployed.dataset_fingerprint
    if known is None:
        log.warning("the deployed model does not say how many images it was trained on: nothing is said of new ones")
        return NewData(0, 0, fingerprint)
    if deployed.dataset == options.dataset and not options.dataset.startswith(GROWING):
        return NewData(0, known, fingerprint)
    listed = _listed(options)
    log.info(
        "%s has %s images; the deployed model was trained on %s, of %s",
        options.dataset,
        f"{listed:,}",
        f"{known:,}",
        deployed.dataset or "a data set that it does not name",
    )
    return NewData(max(0, listed - known), known, fingerprint)


def _listed(options: IngestOptions) -> int:
    return sum(len(examples) for examples in open_source(options, dry=True).splits.values())
