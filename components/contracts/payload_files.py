"""How the events of a payload log lie in files.

| written by | ending | content |
|---|---|---|
| the collector | `.jsonl.gz` | a line of JSON an event: `id`, `kind`, `time`, `service`, and `body` as base64 |
| the collector | `.parquet` | a row an event, the same columns: `time` a timestamp in UTC, `body` plain bytes |
| KServe's agent | `.json` | an event, or a list of them |
| KServe's agent, from 0.17 | `.parquet` | a row an event, all of it text, and no time |

What KServe's agent writes is told in its pkg/logger: store.go, types.go, marshaller_json.go, marshaller_parquet.go and
marshaller_record.go.
"""

import base64
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from kfp_image_classification.components.contracts.payload_events import (
    KINDS,
    NotAnEvent,
    PayloadEvent,
    kind_of,
)

FileFormat = Literal["jsonl", "parquet"]

KSERVE_SUFFIX = ".json"
# How what is no log shows it: cut off, damaged, nested without end, or something else altogether.
_BROKEN = (OSError, EOFError, zlib.error, RecursionError, ValueError, LookupError, TypeError, AttributeError)


class FormatUnusable(Exception):
    """A format whose Python package is not installed; the message says what to do."""


@dataclass(frozen=True)
class Format:
    """A format of the collector.

    Attributes:
        suffix: The ending of its files.
        content: Makes a file of events.
    """

    suffix: str
    content: Callable[[Sequence[PayloadEvent]], bytes]


def to_lines(events: Iterable[PayloadEvent]) -> bytes:
    """The content of a file of JSON lines."""
    lines = (
        json.dumps(
            {
                "id": event.id,
                "kind": event.kind,
                "time": event.time.isoformat(),
                "service": event.service,
                "body": base64.b64encode(event.body).decode(),
            }
        )
        for event in events
    )
    # The bodies are base64 of images, mostly: the fastest level takes the base64 away, and no level takes more.
    return gzip.compress("".join(f"{line}\n" for line in lines).encode(), compresslevel=1)


def to_parquet(events: Iterable[PayloadEvent]) -> bytes:
    """The content of a file of Parquet.

    Raises:
        FormatUnusable: When pyarrow is not installed.
    """
    pyarrow, parquet = _pyarrow()
    rows = [*events]
    table = pyarrow.table(
        {
            "id": pyarrow.array([event.id for event in rows], pyarrow.string()),
            "kind": pyarrow.array([event.kind for event in rows], pyarrow.string()),
            "time": pyarrow.array([event.time for event in rows], pyarrow.timestamp("us", "UTC")),
            "service": pyarrow.array([event.service for event in rows], pyarrow.string()),
            # Large: what waits for a folder that takes nothing may have more than 2 GiB.
            "body": pyarrow.array([event.body for event in rows], pyarrow.large_binary()),
        }
    )
    sink = pyarrow.BufferOutputStream()
    # A dictionary of bodies would be the bodies.
    parquet.write_table(table, sink, compression="zstd", use_dictionary=["kind", "service"])
    content: bytes = sink.getvalue().to_pybytes()
    return content


FORMATS: Mapping[FileFormat, Format] = {
    "jsonl": Format(".jsonl.gz", to_lines),
    "parquet": Format(".parquet", to_parquet),
}


def from_file(name: str, content: bytes, written: datetime) -> Iterator[PayloadEvent]:
    """Reads a file of the collector or of KServe's agent.

    Args:
        name: Of the file, whose ending tells its form.
        content: Of the file.
        written: When the file was, for events that do not say when they were: KServe's before 0.18 or so, and in
            Parquet.

    Raises:
        NotAnEvent: When the file holds something else, or is not whole.
        FormatUnusable: When it is Parquet, and pyarrow is not installed.
    """
    try:
        if name.endswith(FORMATS["jsonl"].suffix):
            for line in gzip.decompress(content).splitlines():
                yield _from_line(json.loads(line))
        elif name.endswith(FORMATS["parquet"].suffix):
            yield from _from_parquet(content, written)
        elif name.endswith(KSERVE_SUFFIX):
            records = json.loads(content)
            for record in records if isinstance(records, list) else [records]:
                yield _from_kserve(record, written)
        else:
            endings = ", ".join(one.suffix for one in FORMATS.values())
            raise NotAnEvent(f"expected a file that ends in {endings} or {KSERVE_SUFFIX}")
    except NotAnEvent:
        raise
    except _BROKEN as error:
        raise NotAnEvent(f"it holds no whole events ({type(error).__name__}: {error})") from None


def _from_line(line: Mapping[str, Any]) -> PayloadEvent:
    return _from_columns({**line, "time": datetime.fromisoformat(line["time"]), "body": base64.b64decode(line["body"])})


def _from_parquet(content: bytes, written: datetime) -> Iterator[PayloadEvent]:
    pyarrow, parquet = _pyarrow()
    try:
        # Without threads: one that still runs when the process ends aborts it (apache/arrow issue 34314).
        rows = parquet.ParquetFile(pyarrow.BufferReader(content)).read(use_threads=False).to_pylist()
    except pyarrow.ArrowException as error:
        raise NotAnEvent(f"it is no Parquet ({error})") from None
    for row in rows:
        yield _from_columns(row) if "kind" in row else _from_kserve(row, written)


def _from_columns(row: Mapping[str, Any]) -> PayloadEvent:
    if row["kind"] not in KINDS:
        raise NotAnEvent(f"kind {row['kind']!r}")
    return PayloadEvent(
        str(row["id"]), row["kind"], _with_zone(row["time"]), str(row["service"]), bytes(memoryview(row["body"]))
    )


def _from_kserve(record: Mapping[str, Any], written: datetime) -> PayloadEvent:
    # Releases write the names with a capital or without.
    known = {name.lower(): value for name, value in record.items()}
    time = known.get("occurrencetime") or ""
    return PayloadEvent(
        str(known["id"]),
        kind_of(str(known["reqtype"])),
        # Go writes year 1 for a time that nobody set.
        _with_zone(datetime.fromisoformat(time)) if time and not time.startswith("0001-") else written,
        str(known.get("inferenceservice", "")),
        base64.b64decode(known.get("bytes") or ""),
    )


def _with_zone(time: datetime) -> datetime:
    """A time without a zone is one of UTC, as the collector and KServe's agent write it."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def check_usable(file_format: FileFormat) -> None:
    """Sees that files of a format can be written from here.

    Raises:
        FormatUnusable: When its Python package is not installed.
    """
    FORMATS[file_format].content([])


def _pyarrow() -> tuple[Any, Any]:
    # On demand, as it takes half a second and 150 MB that nobody needs for JSON lines.
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise FormatUnusable(
            "Parquet needs the Python package pyarrow; pip install 'kfp-image-classification[parquet]'"
        ) from None
    return pyarrow, parquet
