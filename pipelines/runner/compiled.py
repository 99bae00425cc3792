"""The compiled files: every component on its own, and pipelines that cannot run on this machine."""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from kfp import compiler
from kfp.dsl.base_component import BaseComponent

from kfp_image_classification import components
from kfp_image_classification.components.step.errors import InvalidInput
from kfp_image_classification.components.step.whole_file import write_whole

COMPILED = Path("compiled")
BAD_INPUT = 2
SUFFIXES = (".yaml", ".yml", ".json")


def all_components() -> dict[str, BaseComponent]:
    """Every component of the package, by its name: what the files `components/*/*component.py` define."""
    found = {}
    for path in sorted(Path(components.__file__).parent.glob("*/*component.py")):
        module = import_module(f"{components.__name__}.{path.parent.name}.{path.stem}")
        found.update({value.name: value for value in vars(module).values() if isinstance(value, BaseComponent)})
    return found


def compile_to(component: BaseComponent, output: Path) -> None:
    """Writes a pipeline or a component as IR; makes the folder where it is not there.

    Args:
        component: What to compile.
        output: The file, with an ending that tells its format.

    Raises:
        InvalidInput: When the file cannot be written.
    """
    if output.is_dir():
        raise InvalidInput(f"output = {str(output)!r}: is a folder; name a file in it")
    if output.suffix not in SUFFIXES:
        raise InvalidInput(f"output = {str(output)!r}: must be a file that ends in {' or '.join(SUFFIXES)}")
    with tempfile.TemporaryDirectory() as directory:
        compiled = Path(directory, f"compiled{output.suffix}")
        compiler.Compiler().compile(component, str(compiled))
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            write_whole(output, compiled.read_text())
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InvalidInput(f"output = {str(output)!r}: cannot be written ({reason})") from None


def compile_components(directory: Path) -> None:
    """Writes NAME.yaml for each component, for use without this package: `kfp.components.load_component_from_file`."""
    for name, component in all_components().items():
        compile_to(component, directory / f"{name}.yaml")


def compile_from_command_line(pipeline: BaseComponent, file_name: str) -> None:
    """Handles `--compile [--output FILE]` for a pipeline that does nothing else here."""
    parser = argparse.ArgumentParser(description=(pipeline.pipeline_func.__doc__ or "").splitlines()[0])
    parser.add_argument("--compile", action="store_true", required=True, help="write the pipeline as IR YAML")
    parser.add_argument(
        "--output", type=Path, default=COMPILED / file_name, help=f"the file to write (default: compiled/{file_name})"
    )
    arguments = parser.parse_args()
    with bad_input_told():
        compile_to(pipeline, arguments.output)
    print(f"wrote {arguments.output}")


@contextmanager
def bad_input_told() -> Iterator[None]:
    """Ends the program with exit code 2 when something that was given is wrong, and says what."""
    try:
        yield
    except InvalidInput as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        sys.exit(BAD_INPUT)


if __name__ == "__main__":
    with bad_input_told():
        compile_components(COMPILED / "components")
    print(f"wrote {COMPILED / 'components'}")
