"""Lets a model server score an archive of images: a folder or a bucket in, a CSV out, resumable.

Each image has one row, in the order of the files' names. What is in the CSV already is not asked again, so a run that
was interrupted goes on where it stopped.
"""

import base64
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import httpx
import tenacity

from kfp_image_classification.components.contracts.folders import Folder, FolderFailed
from kfp_image_classification.components.step.errors import InvalidInput, StageFailed

COLUMNS = ("file", "label", "probability", "error")
SUFFIXES = (".png", ".jpg", ".jpeg")
# Images of one request, and requests at a time: the server makes batches of what waits.
IMAGES, REQUESTS = 16, 4
BUSY_SECONDS = 300.0

Item = TypeVar("Item")


@dataclass
class Outcome:
    """How far it is.

    Attributes:
        images: How many there are.
        done: How many have a row.
        failed: How many got an error now.
    """

    images: int
    done: int
    failed: int = 0


def score_archive(client: httpx.Client, predict_url: str, files: Folder, output: Path) -> Iterator[Outcome]:
    """Asks about every image that the CSV lacks, and tells after each request how far it is.

    Args:
        client: Of the server.
        predict_url: Of the V1 protocol.
        files: The images.
        output: The CSV; made where it is not there.

    Raises:
        InvalidInput: When there is no image, or the file is another one.
        StageFailed: When the server does not answer; the CSV has what it did answer.
    """
    try:
        names = sorted(file.name for file in files.files() if file.name.lower().endswith(SUFFIXES))
    except FolderFailed as error:
        raise InvalidInput(f"input: {error}") from None
    if not names:
        raise InvalidInput(f"input: there is nothing, or no image, no file that ends in {', '.join(SUFFIXES)}")
    done = _done(output)
    outcome = Outcome(images=len(names), done=sum(name in done for name in names))
    yield outcome
    requests = _batched((name for name in names if name not in done), IMAGES)
    with (
        output.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ThreadPoolExecutor(REQUESTS) as pool,
    ):
        table = csv.writer(file, lineterminator="\n")
        if not done and file.tell() == 0:
            table.writerow(COLUMNS)
        # Some requests at a time: what waits is read already, and an archive is larger than memory.
        for some in _batched(requests, REQUESTS):
            for rows in pool.map(lambda names: _rows(client, predict_url, files, names), some):
                table.writerows(rows)
                file.flush()
                outcome.failed += sum(bool(row[-1]) for row in rows)
                outcome.done += len(rows)
                yield outcome


def _done(output: Path) -> set[str]:
    """The files that have a row; a last line that was not written to its end is taken away."""
    if not output.exists():
        return set()
    content = output.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    while whole.count(b'"') % 2:  # a name with a line end in it, cut off there
        whole = whole[: whole.rfind(b"\n", 0, -1) + 1]
    if len(whole) < len(content):
        with output.open("r+b") as file:
            file.truncate(len(whole))
    rows = csv.reader(io.StringIO(whole.decode("utf-8", errors="surrogateescape"), newline=""))
    heading = next(rows, None)
    if heading is not None and tuple(heading) != COLUMNS:
        raise InvalidInput(f"--output {str(output)!r}: is another file, and is left alone; name one that is not there")
    return {row[0] for row in rows if len(row) == len(COLUMNS)}


def _rows(client: httpx.Client, url: str, files: Folder, names: Sequence[str]) -> list[tuple[str, str, str, str]]:
    read: list[tuple[str, bytes]] = []
    rows = {}
    for name in names:
        try:
            read.append((name, files.read(name)))
        except FolderFailed as error:
            rows[name] = (name, "", "", str(error))
    for name, answer in zip([name for name, _ in read], _answers(client, url, [one for _, one in read]), strict=True):
        if isinstance(answer, str):
            rows[name] = (name, "", "", answer)
        else:
            rows[name] = (name, str(answer["label"]), f"{max(answer['probabilities']):.6f}", "")
    return [rows[name] for name in names]


def _answers(client: httpx.Client, url: str, images: list[bytes]) -> list[dict[str, Any] | str]:
    """An answer for each image, or why there is none: one that cannot be used must not cost the others theirs."""
    if not images:
        return []
    response = _posted(client, url, images)
    if response.is_success:
        try:
            predictions: list[dict[str, Any] | str] = response.json()["predictions"]
            if len(predictions) == len(images):
                return predictions
        except (KeyError, TypeError, ValueError):
            pass
        raise StageFailed(f"{url} answers, but not as KServe's V1 protocol does")
    reason = _reason(response)
    if response.status_code not in (httpx.codes.BAD_REQUEST, httpx.codes.REQUEST_ENTITY_TOO_LARGE):
        raise StageFailed(f"{url} answers {response.status_code}: {reason}")
    if len(images) == 1:
        return [reason.removeprefix("image 0: ")]
    middle = len(images) // 2
    return _answers(client, url, images[:middle]) + _answers(client, url, images[middle:])


def _posted(client: httpx.Client, url: str, images: list[bytes]) -> httpx.Response:
    body = {"instances": [{"b64": base64.b64encode(image).decode()} for image in images]}
    waiting = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda response: response.status_code == httpx.codes.SERVICE_UNAVAILABLE),
        wait=tenacity.wait_exponential_jitter(initial=0.5, max=10),
        stop=tenacity.stop_after_delay(BUSY_SECONDS),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    try:
        response: httpx.Response = waiting(client.post, url, json=body)
    except httpx.HTTPError as error:
        raise StageFailed(f"{url} does not answer: {error}") from None
    return response


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    remaining = iter(items)
    while some := list(islice(remaining, size)):
        yield some


def _reason(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (KeyError, TypeError, ValueError):
        return response.reason_phrase
