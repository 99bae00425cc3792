"""The pixels that ingest writes into shards beside those that the model server feeds to the model, file by file.

    python tests/cases/ingest_vs_server.py FOLDER [SIZE]

FOLDER is made anew. Every odd file is the test image of a data set of its own, as one that is refused stops the others.
"""

import logging
import shutil
import sys
from pathlib import Path

import numpy as np
from odd_images import picture, write
from PIL import Image

from kfp_image_classification.components.contracts import records
from kfp_image_classification.components.contracts.dataset_manifest import Dataset
from kfp_image_classification.components.deploy.server.image_files import UnusableImage, decode
from kfp_image_classification.components.ingest.options import IngestOptions
from kfp_image_classification.components.ingest.sharding import write_dataset
from kfp_image_classification.components.ingest.sources.opening import open_source
from kfp_image_classification.components.step.errors import InvalidInput

DEFAULT_SIZE = 32


def compare(path: Path, root: Path, size: int) -> str:
    """One line about one file."""
    for split, name in (("train", "x"), ("train", "y"), ("test", "x"), ("test", "y")):
        (root / split / name).mkdir(parents=True)
    shutil.copy(path, root / "test" / "x")
    for index in range(6):
        Image.fromarray(picture(seed=index)).save(root / "train" / "xy"[index % 2] / f"{index}.png")
    options = IngestOptions(
        dataset=f"image_folder:{root}", validation_share=0.5, workers=1, seed=0, image_size=size, record_format="raw"
    )
    try:
        write_dataset(open_source(options), options, root / "out", logging.getLogger())
    except InvalidInput as error:
        return f"ingest refuses it: {str(error).removeprefix(f'dataset = {options.dataset!r}: ')[:200]}"
    dataset = Dataset(root / "out")
    shape = dataset.manifest.image_shape
    trained = next(records.read_batches(dataset, dataset.manifest.splits["test"].shards, 1))[0].numpy()[0].astype(int)
    try:
        served = decode([path.read_bytes()], shape, 10**9)[0].astype(int)
    except UnusableImage as error:
        return f"ingest takes it, server: {error}"
    difference = np.abs(trained - served)
    return (
        f"max {difference.max():3d}  mean {difference.mean():6.3f}  pixels that differ "
        f"{100 * (difference.max(-1) > 0).mean():5.1f} %   mean colour trained {trained.mean((0, 1)).round(0)} "
        f"served {served.mean((0, 1)).round(0)}"
    )


def main() -> None:
    folder = Path(sys.argv[1])
    size = int(sys.argv[2]) if len(sys.argv) > 2 else DEFAULT_SIZE
    shutil.rmtree(folder, ignore_errors=True)
    for name, path in write(folder / "odd").items():
        print(f"{name:28s} {compare(path, folder / f'set_{name}', size)}", flush=True)


if __name__ == "__main__":
    main()
