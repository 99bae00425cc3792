"""What a step is given to open a bucket."""

import os
import subprocess
import sys
from pathlib import Path

import yaml
from kfp import compiler, dsl

from kfp_image_classification.components.cluster.data_credentials import SECRET, VARIABLES, give_data_credentials


@dsl.component
def look():
    pass


@dsl.pipeline(name="looking")
def looking():
    give_data_credentials(look())


def test_a_secret_that_may_be_missing_becomes_variables_that_may_be_missing(tmp_path: Path) -> None:
    compiler.Compiler().compile(looking, str(tmp_path / "looking.yaml"))
    _, platform = yaml.safe_load_all((tmp_path / "looking.yaml").read_text())
    (executor,) = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    (given,) = executor["secretAsEnv"]
    assert (given["secretName"], given["optional"]) == (SECRET, True)
    assert {pair["envVar"]: pair["secretKey"] for pair in given["keyToEnv"]} == {name: name for name in VARIABLES}


def test_a_key_of_google_that_is_none_is_told_and_not_shown(tmp_path: Path) -> None:
    program = (
        "from kfp_image_classification.components.ingest.options import IngestOptions\n"
        "from kfp_image_classification.components.ingest.sources.opening import open_source\n"
        "open_source(IngestOptions(dataset='image_folder:gs://x/y', validation_share=0.1, workers=1, seed=0))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "GOOGLE_APPLICATION_CREDENTIALS_JSON": "my-key"},
        capture_output=True,
        text=True,
        check=False,
    )
    told = ended.stderr.splitlines()[-1]
    assert (
        "dataset = 'image_folder:gs://x/y': gs://x/y cannot be listed: GOOGLE_APPLICATION_CREDENTIALS_JSON is no JSON"
        in told
    )
    assert "my-key" not in told
