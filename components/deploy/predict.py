"""Asks a model server about images:

    python -m kfp_image_classification.components.deploy.predict --url http://HOST:PORT image.png ...
    python -m kfp_image_classification.components.deploy.predict --url http://HOST:PORT --input FOLDER --output FILE.csv

Works with this package's model server, and with any that speaks KServe's V1 protocol for a model from train. Exit
codes: 0 answered (of an archive: each image has its row, be it an error), 1 the server did not answer or refused,
2 bad input.
"""

import argparse
import base64
import sys
from pathlib import Path
from typing import Any, NoReturn

import httpx
from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kfp_image_classification.components.contracts.folders import open_folder
from kfp_image_classification.components.deploy.archive import score_archive
from kfp_image_classification.components.step.direct_network import http_client
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed
from kfp_image_classification.components.step.output import steady_streams

TIMEOUT_SECONDS = 30.0
BAR_WIDTH = 24
TOP = 5
# Below this, a terminal has no room for bars beside names of some length.
WIDE = 60


class Failed(Exception):
    """The server gave no prediction; the message says why."""


def main() -> None:
    """Prints a table of probabilities for each image, or writes a row for each image of an archive."""
    parser = argparse.ArgumentParser(
        prog="python -m kfp_image_classification.components.deploy.predict", description=__doc__
    )
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="PNG or JPEG file")
    parser.add_argument("--input", help="folder of images, s3://BUCKET/PATH or gs://BUCKET/PATH")
    parser.add_argument(
        "--output", type=Path, help="with --input: the CSV to write; where it is there, the run goes on"
    )
    parser.add_argument("--url", required=True, help="base URL of the server, or of a prediction (ending in :predict)")
    parser.add_argument("--name", help="the model's name; by default the server's only one")
    parser.add_argument("--host", help="Host header, where an ingress tells services apart by it")
    parser.add_argument("--top", type=int, help=f"with images: how many classes to show (default {TOP})")
    arguments = parser.parse_args()
    if not arguments.url.startswith(("http://", "https://")):
        parser.error(f"--url {arguments.url!r}: expected http://HOST:PORT")
    if bool(arguments.images) == bool(arguments.input) or bool(arguments.input) != bool(arguments.output):
        parser.error("give image files, or --input and --output")
    if arguments.input and arguments.top is not None:
        parser.error("--top goes with image files; of --input, the first class is written")
    if arguments.top is not None and arguments.top < 1:
        parser.error(f"--top {arguments.top}: expected a number from 1")
    if arguments.name and arguments.url.endswith(":predict"):
        parser.error("--name goes with the base URL of a server; a URL that ends in :predict names the model")
    steady_streams()
    headers = {"host": arguments.host} if arguments.host else {}
    try:
        with http_client(arguments.url, headers=headers, timeout=TIMEOUT_SECONDS) as client:
            if arguments.input:
                _score(client, arguments)
            else:
                _show(client, arguments)
    except httpx.HTTPError as error:
        _end(1, f"{arguments.url} does not answer: {error}")
    except InvalidInput as error:
        _end(2, str(error))
    except (Failed, StageFailed) as error:
        _end(1, str(error))
    except OSError as error:
        _end(2, f"{error.filename}: {error.strerror}")
    except (KeyError, TypeError, ValueError):
        _end(1, f"{arguments.url} answers, but not as KServe's V1 protocol does")


def _score(client: httpx.Client, arguments: argparse.Namespace) -> None:
    files = open_folder(arguments.input, "input")
    url, _ = _model(client, arguments.url.rstrip("/"), arguments.name)
    with Progress(console=Console(stderr=True, markup=False, emoji=False), transient=True) as progress:
        task = progress.add_task("images")
        for outcome in score_archive(client, url, files, arguments.output):
            progress.update(task, total=outcome.images, completed=outcome.done)
    errors = f", {outcome.failed:,} of them could not be answered" if outcome.failed else ""
    print(f"{outcome.done:,} images in {arguments.output}{errors}")


def _show(client: httpx.Client, arguments: argparse.Namespace) -> None:
    console = Console(markup=False, emoji=False)
    files = [image.read_bytes() for image in arguments.images]
    url, class_names = _model(client, arguments.url.rstrip("/"), arguments.name)
    body = {"instances": [{"b64": base64.b64encode(file).decode()} for file in files]}
    predictions = _answer(client.post(url, json=body))["predictions"]
    for image, prediction in zip(arguments.images, predictions, strict=True):
        # A path stays whole, to be copied.
        console.print(Text(f"{image}: {prediction['label']}", "bold"), soft_wrap=True)
        console.print(_table(prediction, class_names, arguments.top or TOP, has_bars=console.width >= WIDE))


def _model(client: httpx.Client, url: str, name: str | None) -> tuple[str, list[str]]:
    """Where to ask, and the classes' names if the server tells them."""
    if url.endswith(":predict"):
        url, _, name = url.removesuffix(":predict").rpartition("/v1/models/")
    if name is None:
        names = _answer(client.get(f"{url}/v2/models"))["models"]
        if len(names) != 1:
            raise Failed(f"{url} has the models {', '.join(names)}; choose one with --name")
        name = names[0]
    metadata = client.get(f"{url}/v2/models/{name}")
    told = metadata.json() if metadata.is_success else {}
    return f"{url}/v1/models/{name}:predict", told.get("parameters", {}).get("class_names", [])


def _answer(response: httpx.Response) -> Any:
    if response.is_success:
        return response.json()
    try:
        reason = response.json()["error"]
    except (KeyError, TypeError, ValueError):
        reason = response.reason_phrase
    raise Failed(f"{response.url} answers {response.status_code}: {reason}")


def _table(prediction: dict[str, Any], class_names: list[str], top: int, has_bars: bool) -> Table:
    probabilities = prediction["probabilities"]
    table = Table(box=HEAVY_HEAD if has_bars else None)
    table.add_column("class", overflow="fold")
    table.add_column("probability" if has_bars else "", justify="right", no_wrap=True, min_width=len("100.00%"))
    if has_bars:
        table.add_column("", width=BAR_WIDTH)
    for index in sorted(range(len(probabilities)), key=lambda index: -probabilities[index])[:top]:
        name = class_names[index] if class_names else f"class {index}"
        share = probabilities[index]
        bar = [ProgressBar(total=1, completed=share, width=BAR_WIDTH)] if has_bars else []
        table.add_row(name, f"{share:.2%}", *bar)
    return table


def _end(code: int, message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
