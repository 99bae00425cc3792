"""The package installed from its wheel, in a repository that has folders named components and pipelines of its own."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import httpx
import pytest
import tenacity
from repository import REPOSITORY

from kfp_image_classification.components.train.launchers.machine import free_ports

# One component is imported, the other loaded from its compiled file; both run here, with no image and no cluster.
PIPELINE = """
import sys

import components
import pipelines
from kfp import compiler, dsl, local
from kfp.components import load_component_from_file

from kfp_image_classification.components.train import train

assert (components.OWNER, pipelines.OWNER) == ("them", "them")
ingest = load_component_from_file(sys.argv[1])


@dsl.pipeline(name="theirs")
def theirs() -> dsl.Model:
    data = ingest(dataset="mnist_5k", workers=1)
    trained = train(shards=data.outputs["shards"], model_type="cnn_small", workers=1, epochs=1)
    return trained.outputs["model"]


if __name__ == "__main__":
    compiler.Compiler().compile(theirs, "theirs.yaml")
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root="outputs")
    print("MODEL", theirs().output.path)
"""


@pytest.fixture(scope="module")
def their_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `components/`, `pipelines/`, and an environment that has our wheel, but not this repository."""
    folder = tmp_path_factory.mktemp("theirs")
    for name in ("components", "pipelines"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text('OWNER = "them"\n')
    (folder / "theirs.py").write_text(PIPELINE)
    # Built from a copy, as building leaves a folder behind.
    source = folder / "source"
    for name in ("components", "pipelines"):
        shutil.copytree(REPOSITORY / name, source / name)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", folder / "dist", source], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")

    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, wheel], check=True)
    # All that the wheel needs comes from here; what .pth files here say, such as where this repository is, does not.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = environment / "lib" / version / "site-packages"
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder


@pytest.fixture(scope="module")
def their_python(their_repository: Path) -> str:
    return str(their_repository / "environment" / "bin" / "python")


def test_package_comes_from_the_wheel(their_repository: Path, their_python: str) -> None:
    code = (
        "import components, kfp_image_classification.components.train.options as ours; "
        "print(components.__file__, ours.__file__)"
    )
    printed = subprocess.check_output([their_python, "-c", code], cwd=their_repository, text=True).split()
    assert printed[0] == str(their_repository / "components" / "__init__.py")
    assert Path(printed[1]).is_relative_to(their_repository / "environment")


def test_components_run_and_the_model_is_served(their_repository: Path, their_python: str) -> None:
    ingest = REPOSITORY / "compiled" / "components" / "ingest.yaml"
    ended = subprocess.run(
        [their_python, "theirs.py", ingest], cwd=their_repository, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (their_repository / "theirs.yaml").exists()
    model = ended.stdout.rsplit("MODEL ", 1)[1].strip()

    port = free_ports(1)[0]
    options = ["--model_name=digits", f"--model_dir={model}", "--host=127.0.0.1", f"--http_port={port}"]
    server = subprocess.Popen(
        [their_python, "-m", "kfp_image_classification.components.deploy.server", *options, "--enable_grpc=false"],
        cwd=their_repository,
    )
    try:
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(httpx.HTTPError),
            wait=tenacity.wait_fixed(0.2),
            stop=tenacity.stop_after_delay(60),
        ):
            with attempt:
                httpx.get(f"http://127.0.0.1:{port}/v1/models/digits").raise_for_status()
        page = httpx.get(f"http://127.0.0.1:{port}/", headers={"Accept": "text/html"})
        assert "<html" in page.text, "the page travels with the package"
    finally:
        server.terminate()
        server.wait(30)
