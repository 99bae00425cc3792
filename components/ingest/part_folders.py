"""Where the parts of a data set lie while it is written by several tasks: in a folder that all of them see.

.making-parts-RECIPE-4/   of one data set in four parts; a clean-up takes it for what it is, unfinished
  part-0/                 a part: it appears under its name when it is whole
  .making-…/              one that is being written; each writer has a folder of its own
"""

import os
from pathlib import Path

from kfp_image_classification.components.ingest.kept_datasets import MAKING_PREFIX
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.recipe import recipe

# Without a volume, a folder for all parts, if the runner of the pipeline has one.
PARTS_VARIABLE = "INGEST_PARTS_PATH"


def parts_folder(options: IngestOptions, datasets: Path | None) -> Path | None:
    """The folder of a data set's parts.

    Args:
        options: What the data set is made from, and in how many parts.
        datasets: The folder of all data sets on the volume; None without one.

    Returns:
        None when there is one part, or no folder that several tasks see.
    """
    root = datasets or Path(os.environ.get(PARTS_VARIABLE, ""))
    if options.ingest_parts == 1 or root == Path():
        return None
    return root / f"{MAKING_PREFIX}parts-{recipe(options)}-{options.ingest_parts}"
