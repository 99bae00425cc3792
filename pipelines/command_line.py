"""`python pipelines/e2e.py`: compile the pipeline, or run it on this machine."""

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from kfp import compiler
from kfp.dsl.base_component import BaseComponent

from components.errors import InvalidInput, StageFailed
from pipelines.parameters import add_options, check_data_set, check_parameters, given_parameters, local_parameters

COMPILED = Path("compiled")
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130


def main(pipeline: BaseComponent) -> None:
    """Parses the command line and does what it asks for; exits with 0, 1 (failed), 2 (bad input) or 130 (Ctrl-C)."""
    arguments = _parser(pipeline).parse_args()
    try:
        if arguments.compile:
            compiler.Compiler().compile(pipeline, str(arguments.output))
            print(f"wrote {arguments.output}")
            return
        parameters = given_parameters(arguments, pipeline.pipeline_func)
        sys.exit(_run(pipeline, parameters, arguments))
    except InvalidInput as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except StageFailed as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _parser(pipeline: Any) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(pipeline.pipeline_func.__doc__ or "").splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--run", action="store_true", help="run the pipeline on this machine, without a cluster")
    action.add_argument("--compile", action="store_true", help="write the pipeline as IR YAML for Kubeflow Pipelines")
    parser.add_argument("--serve", action="store_true", help="with --run: keep serving the model until Ctrl-C")
    parser.add_argument(
        "--runs-dir", type=Path, default=Path("runs"), help="with --run: folder for runs (default: runs)"
    )
    parser.add_argument("--no-cache", action="store_true", help="with --run: run every step, also those done before")
    parser.add_argument("--verbose", action="store_true", help="with --run: show everything that is logged")
    parser.add_argument(
        "--output",
        type=Path,
        default=COMPILED / "e2e.yaml",
        help="with --compile: the file to write (default: compiled/e2e.yaml)",
    )
    add_options(parser, pipeline.pipeline_func)
    return parser


def _run(pipeline: BaseComponent, parameters: dict[str, Any], arguments: argparse.Namespace) -> int:
    parameters = local_parameters(parameters)
    check_parameters(parameters)
    check_data_set(parameters)
    from pipelines.local_run import LocalRun

    run = LocalRun(arguments.runs_dir, use_cache=not arguments.no_cache, verbose=arguments.verbose)
    signal.signal(signal.SIGTERM, run.stop_everything)
    signal.signal(signal.SIGINT, run.stop_everything)
    try:
        run.execute(pipeline, parameters)
        run.print_summary(keeps_serving=arguments.serve)
        if arguments.serve:
            run.serve_until_stopped()
    finally:
        run.stop_server()
    return 0
