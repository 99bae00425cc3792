"""`python pipelines/e2e.py`: runs the pipeline here or on a cluster, compiles it, or checks a cluster for it."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from kfp.dsl.base_component import BaseComponent

from kfp_image_classification.components.step.environment import settle_environment
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed
from kfp_image_classification.components.step.output import start_in_utf8
from kfp_image_classification.pipelines.runner.applicable import check_applicable, given_options
from kfp_image_classification.pipelines.runner.compiled import BAD_INPUT, COMPILED, compile_to
from kfp_image_classification.pipelines.runner.parameters import (
    add_options,
    check_data_set,
    check_mlflow_server,
    check_parameters,
    check_timeout,
    given_parameters,
    local_parameters,
)

FAILED, INTERRUPTED = 1, 130


def main(pipeline: BaseComponent) -> None:
    """Parses the command line and does what it asks for; exits with 0, 1 (failed), 2 (bad input) or 130 (Ctrl-C).

    A signal that ends a local run gives 128 and its number.
    """
    start_in_utf8()
    settle_environment()
    arguments, given = given_options(_parser(pipeline))
    try:
        check_applicable(given)
        if arguments.compile:
            compile_to(pipeline, arguments.output)
            print(f"wrote {arguments.output}")
            return
        parameters = given_parameters(arguments, pipeline.pipeline_func)
        action = _check if arguments.check else _submit if arguments.submit else _run
        sys.exit(action(pipeline, parameters, arguments))
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
    file_name = f"{pipeline.pipeline_func.__name__}.yaml"
    parser = argparse.ArgumentParser(description=(pipeline.pipeline_func.__doc__ or "").partition("\n")[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--run", action="store_true", help="run the pipeline on this machine, without a cluster")
    action.add_argument("--compile", action="store_true", help="write the pipeline as IR YAML for Kubeflow Pipelines")
    action.add_argument("--submit", action="store_true", help="run the pipeline on a cluster with Kubeflow Pipelines")
    action.add_argument("--check", action="store_true", help="tell what the cluster lacks for the pipeline")
    parser.add_argument("--serve", action="store_true", help="with --run: keep serving the model until Ctrl-C")
    parser.add_argument(
        "--runs-dir", type=Path, default=Path("runs"), help="with --run: folder for runs (default: runs)"
    )
    parser.add_argument(
        "--no-cache", action="store_true", help="with --run and --submit: run every step, also those done before"
    )
    parser.add_argument("--verbose", action="store_true", help="with --run: show everything that is logged")
    parser.add_argument("--plain", action="store_true", help="with --run: plain lines, also on a terminal")
    parser.add_argument(
        "--output",
        type=Path,
        default=COMPILED / file_name,
        help=f"with --compile: the file to write; its folder is made (default: compiled/{file_name})",
    )
    _add_cluster_options(parser)
    add_options(parser, pipeline.pipeline_func)
    return parser


def _add_cluster_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with --submit, and where it says so with --check")
    group.add_argument(
        "--host",
        default=os.environ.get("KF_PIPELINES_ENDPOINT", ""),
        help="address of Kubeflow Pipelines, such as http://localhost:8080 (default: KF_PIPELINES_ENDPOINT)",
    )
    group.add_argument(
        "--namespace",
        default="",
        help="with --submit: your namespace, where Kubeflow has several users; "
        "with --check: where the steps run (default: kubeflow)",
    )
    group.add_argument("--experiment", default="Default", help="groups runs in the UI (default: Default)")
    group.add_argument("--run-name", default="", help="default: the pipeline's name and the time")
    group.add_argument("--token-file", default="", help="file with a bearer token, read at each request")
    group.add_argument("--token", default="", help="the token itself; better in the variable KF_PIPELINES_TOKEN")
    group.add_argument("--ca-cert", default="", help="file with the certificates to trust")
    group.add_argument("--wait", action="store_true", help="follow the run, and exit with its outcome")
    group.add_argument(
        "--timeout",
        type=float,
        default=0,
        metavar="SECONDS",
        help="with --submit --wait: stop following (default: never); with --check: for pulling images (default: 120)",
    )
    group.add_argument(
        "--service-account",
        default="pipeline-runner",
        help="with --check: as which the steps run (default: pipeline-runner)",
    )


def _check(pipeline: BaseComponent, parameters: dict[str, Any], arguments: argparse.Namespace) -> int:
    check_parameters(parameters)
    check_timeout(arguments.timeout)
    from kfp_image_classification.pipelines.runner.cluster.preflight import NAMESPACE, PULL_SECONDS, check

    return check(
        parameters, arguments.namespace or NAMESPACE, arguments.service_account, arguments.timeout or PULL_SECONDS
    )


def _submit(pipeline: BaseComponent, parameters: dict[str, Any], arguments: argparse.Namespace) -> int:
    check_parameters(parameters)
    from kfp_image_classification.pipelines.runner.cluster.submit import SubmitOptions, submit

    options = SubmitOptions(
        host=arguments.host,
        namespace=arguments.namespace,
        experiment=arguments.experiment,
        run_name=arguments.run_name,
        token_file=arguments.token_file,
        token=arguments.token,
        ca_cert=arguments.ca_cert,
        use_cache=not arguments.no_cache,
        wait=arguments.wait,
        timeout=arguments.timeout,
    )
    return submit(pipeline, parameters, options)


def _run(pipeline: BaseComponent, parameters: dict[str, Any], arguments: argparse.Namespace) -> int:
    parameters = local_parameters(parameters)
    check_parameters(parameters)
    check_data_set(parameters)
    check_mlflow_server(parameters)
    from kfp_image_classification.pipelines.runner.local.local_run import LocalRun

    run = LocalRun(
        arguments.runs_dir, use_cache=not arguments.no_cache, verbose=arguments.verbose, plain=arguments.plain
    )
    run.handle_signals()
    try:
        run.execute(pipeline, parameters)
        run.print_summary(keeps_serving=arguments.serve)
        if arguments.serve:
            run.serve_until_stopped()
    finally:
        run.end()
    return 0
