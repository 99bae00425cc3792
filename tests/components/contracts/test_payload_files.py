"""Files of a payload log: the collector's own, and those of KServe's agent.

What is in `kserve_logger/` was written by KServe's own marshallers at aaac4e29, v0.20 and 104 commits
(NewJSONMarshallerHandler and NewParquetMarshallerHandler in pkg/logger), from two LogRequests of types.go. An event
alone makes an object, several make a list; names end as getObjectKey in store.go has them.
"""

import base64
import gzip
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pandas
import pytest

from kfp_image_classification.components.contracts.payload_events import NotAnEvent, PayloadEvent
from kfp_image_classification.components.contracts.payload_files import FORMATS, FileFormat, from_file

NOW = datetime(2026, 11, 26, tzinfo=UTC)
REQUEST, RESPONSE = b'{"instances": [[0]]}', b'{"predictions": []}'
EVENTS = [
    PayloadEvent("größer", "request", NOW, "digits", b"\x00\xff" * 1000),
    PayloadEvent("größer", "response", NOW.astimezone(timezone(timedelta(hours=5))), "", b""),
]


@pytest.mark.parametrize("name", FORMATS)
def test_events_come_back_from_each_format(name: FileFormat) -> None:
    for events in (EVENTS, []):
        assert [*from_file(f"a{FORMATS[name].suffix}", FORMATS[name].content(events), NOW)] == events


def test_parquet_has_the_columns_that_others_expect(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(FORMATS["parquet"].content(EVENTS))
    (tmp_path / "b.parquet").write_bytes(FORMATS["parquet"].content(EVENTS))
    table = pandas.read_parquet(tmp_path)
    assert {name: str(kind) for name, kind in table.dtypes.items()} == {
        "id": "object",
        "kind": "object",
        "time": "datetime64[us, UTC]",
        "service": "object",
        "body": "object",
    }
    assert table.groupby("kind").size().to_dict() == {"request": 2, "response": 2}
    assert table.body[0] == EVENTS[0].body
    assert (table.time == pandas.Timestamp(NOW)).all()


def test_lines_need_no_pyarrow() -> None:
    """It takes half a second, and the model server's image does not have it."""
    program = """if True:
        import sys
        sys.modules["pyarrow"] = None
        from datetime import UTC, datetime
        from kfp_image_classification.components.contracts.payload_files import FORMATS, FormatUnusable, from_file
        assert not [*from_file("a.jsonl.gz", FORMATS["jsonl"].content([]), datetime.now(UTC))]
        try:
            [*from_file("a.parquet", b"", datetime.now(UTC))]
        except FormatUnusable as error:
            print(error)
    """
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "Parquet needs the Python package pyarrow; pip install 'kfp-image-classification[parquet]'\n"


AT = datetime(2026, 11, 26, 12, 0, 0, 123456, UTC)
OF_KSERVE = [
    PayloadEvent("k-1", "request", AT, "digits", REQUEST),
    PayloadEvent("k-1", "response", AT + timedelta(seconds=1), "digits", RESPONSE),
]
# KServe 0.16, types.go: no names for JSON, and no time.
BEFORE = {
    "Url": {},
    "Bytes": base64.b64encode(RESPONSE).decode(),
    "ReqType": "org.kubeflow.serving.inference.response",
    "Id": "k-2",
    "InferenceService": "digits",
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alone-request.json", OF_KSERVE[:1]),
        ("batch-request.json", OF_KSERVE),
        ("batch-request.parquet", [PayloadEvent(one.id, one.kind, NOW, one.service, one.body) for one in OF_KSERVE]),
    ],
)
def test_files_of_kserves_agent(name: str, expected: list[PayloadEvent]) -> None:
    assert [
        *from_file(f"log/ns/{name}", (Path(__file__).parent / "kserve_logger" / name).read_bytes(), NOW)
    ] == expected


@pytest.mark.parametrize("record", [BEFORE, {**BEFORE, "occurrenceTime": "0001-01-01T00:00:00Z"}])
def test_files_of_kserve_without_a_time(record: dict[str, object]) -> None:
    expected = PayloadEvent("k-2", "response", NOW, "digits", RESPONSE)
    assert [*from_file("k-2-response.json", json.dumps(record).encode(), NOW)] == [expected]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"id\n"),
        ("a.parquet", b"PAR1"),
        ("a.parquet", FORMATS["parquet"].content(EVENTS)[:-9]),
        ("a.json", b"{"),
        ("a.json", b"[1]"),
        ("a.json", b'{"id": "1"}'),
        ("a.jsonl.gz", b"{}"),
        ("a.jsonl.gz", FORMATS["jsonl"].content(EVENTS)[:-9]),
        ("a.jsonl.gz", FORMATS["jsonl"].content(EVENTS)[:30] + b"\xff" * 40 + FORMATS["jsonl"].content(EVENTS)[70:]),
        ("a.json", b"[" * 100_000),
        ("a.jsonl.gz", gzip.compress(b'{"a":' * 100_000, mtime=0)),
        ("a.jsonl.gz", gzip.compress(b'{"id": "1", "kind": "request", "time": 5, "service": "", "body": ""}', mtime=0)),
        ("a.jsonl.gz", gzip.compress(b'{"id": 1, "kind": "other"}\n', mtime=0)),  # two processes name the case alike
    ],
)
def test_what_is_no_log_is_told(name: str, content: bytes) -> None:
    with pytest.raises(NotAnEvent):
        list(from_file(name, content, NOW))


COLUMNS = {"id": ["1"], "kind": ["request"], "time": [NOW], "service": ["s"], "body": [b"x"]}


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"image": ["a.png"], "label": [1]}, "KeyError"),
        ({**COLUMNS, "time": ["yesterday"]}, "AttributeError"),
        ({**COLUMNS, "time": [None]}, "AttributeError"),
        ({**COLUMNS, "body": [None]}, "TypeError"),
        ({**COLUMNS, "body": [5]}, "TypeError"),
        ({**COLUMNS, "kind": [5]}, "kind 5"),
    ],
)
def test_parquet_of_something_else_is_told(columns: dict[str, list[object]], told: str) -> None:
    file = pandas.DataFrame(columns).to_parquet()
    with pytest.raises(NotAnEvent, match=told):
        list(from_file("a.parquet", file, NOW))


def test_a_time_without_a_zone_is_one_of_utc() -> None:
    file = pandas.DataFrame({**COLUMNS, "time": [NOW.replace(tzinfo=None)]}).to_parquet()
    line = b'{"id": "1", "kind": "request", "time": "2026-11-26T12:00:00", "service": "s", "body": "eA=="}'
    for name, content in (("a.parquet", file), ("a.jsonl.gz", gzip.compress(line))):
        (event,) = from_file(name, content, NOW)
        assert event.time.utcoffset() == timedelta(0)
