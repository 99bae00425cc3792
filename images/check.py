"""Run inside an image, as its user: what the image is for loads, with the files that are no Python.

python3 -c "$(cat images/check.py)" IMAGE
"""

import os
import sys
from importlib import import_module, resources
from importlib.util import find_spec

PACKAGE = "kfp_image_classification"
MODULES = {
    "python-tensorflow": [
        "components.ingest.sharding",
        "components.ingest.sources.tfds",
        "components.train.worker.worker",
        "components.train.worker.export",
        "components.train.worker.onnx_export",
        "components.evaluate.scores",
        "components.evaluate.evaluation_page",
        "components.evaluate.champion",
        "components.monitor.look",
        "components.select.decision",
    ],
    "python-tensorflow-gpu": [
        "components.train.worker.worker",
        "components.train.worker.export",
        "components.train.worker.onnx_export",
    ],
    "python-launcher": [
        "components.preflight.report",
        "components.train.run_job",
        "components.train.launchers.cluster_job",
        "components.select.champion",
        "components.select.leaderboard",
        "components.deploy.kserve.cluster",
        "components.track.tracked_run",
        "components.cleanup.unused_folders",
    ],
    "python-server": ["components.deploy.server.server", "components.deploy.server.grpc_server"],
    "python-server-tensorflow": ["components.deploy.server.server", "components.deploy.server.grpc_server"],
    "python-collector": ["components.deploy.collector.collector"],
}
FILES = {
    "components.deploy.server": "page.html",
    "components.report": "page.html.j2",
    "pipelines.runner.local": "pipeline_picture.html.j2",
}


def main(image: str) -> None:
    assert (os.getuid(), os.getgid()) == (1000, 1000), (os.getuid(), os.getgid())
    for module in MODULES[image]:
        import_module(f"{PACKAGE}.{module}")
    for package, file in FILES.items():
        assert resources.files(f"{PACKAGE}.{package}").joinpath(file).is_file(), f"{package}: no {file}"
    if "server" in image:
        import_module(f"{PACKAGE}.components.deploy.server.grpc_server")._kserve_messages()
        import_module("onnxruntime")
    if image == "python-collector":
        import_module(f"{PACKAGE}.components.contracts.payload_files").check_usable("parquet")
        for package in ("s3fs", "gcsfs", "httptools", "uvloop"):
            import_module(package)
    installed = find_spec("tensorflow") is not None
    assert installed == ("tensorflow" in image), f"TensorFlow is {'' if installed else 'not '}installed"
    print(f"{image}: ok")


main(sys.argv[1])
