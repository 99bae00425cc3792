"""The compiled files: every component on its own, and pipelines that cannot run on this machine."""

import argparse
from importlib import import_module
from pathlib import Path

from kfp import compiler
from kfp.dsl.base_component import BaseComponent

from kfp_image_classification import components

COMPILED = Path("compiled")


def all_components() -> dict[str, BaseComponent]:
    """Every component of the package, by its name: what the files `components/*/*component.py` define."""
    found = {}
    for path in sorted(Path(components.__file__).parent.glob("*/*component.py")):
        module = import_module(f"{components.__name__}.{path.parent.name}.{path.stem}")
        found.update({value.name: value for value in vars(module).values() if isinstance(value, BaseComponent)})
    return found


def compile_components(directory: Path) -> None:
    """Writes NAME.yaml for each component, for use without this package: `kfp.components.load_component_from_file`."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, component in all_components().items():
        compiler.Compiler().compile(component, str(directory / f"{name}.yaml"))


def compile_from_command_line(pipeline: BaseComponent, file_name: str) -> None:
    """Handles `--compile [--output FILE]` for a pipeline that does nothing else here."""
    parser = argparse.ArgumentParser(description=(pipeline.pipeline_func.__doc__ or "").splitlines()[0])
    parser.add_argument("--compile", action="store_true", required=True, help="write the pipeline as IR YAML")
    parser.add_argument(
        "--output", type=Path, default=COMPILED / file_name, help=f"the file to write (default: compiled/{file_name})"
    )
    arguments = parser.parse_args()
    compiler.Compiler().compile(pipeline, str(arguments.output))
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    compile_components(COMPILED / "components")
    print(f"wrote {COMPILED / 'components'}")
