"""Whatever is sent, the server answers in time and blames nobody but the sender."""

import json
from types import SimpleNamespace

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FUZZED = settings(
    max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
TIMEOUT_SECONDS = 10

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
IMAGE = st.fixed_dictionaries(
    {"b64": st.sampled_from(["", "aGk=", "iVBORw0KGgo=", "/9j/"]) | st.text(max_size=12) | JSON}
)
ROW = st.lists(st.integers(-1, 256) | JSON, min_size=26, max_size=28)
INSTANCE = IMAGE | st.fixed_dictionaries({"image_bytes": IMAGE | JSON}) | ROW | JSON
DATATYPE = st.sampled_from(["BYTES", "UINT8", "INT64", "FP16", "FP32", "BOOL"]) | JSON
SHAPE = (
    st.sampled_from([[1, 28, 28, 1], [1], [0], [2, 28, 28, 1], [2**31 - 1] * 8])
    | st.lists(st.integers(-2, 30), max_size=5)
    | JSON
)
TENSOR = st.fixed_dictionaries(
    {"name": JSON, "datatype": DATATYPE, "shape": SHAPE},
    optional={
        "data": st.just([0] * 784) | st.lists(INSTANCE, max_size=3) | JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 800) | JSON}) | JSON,
    },
)
V2 = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, min_size=1, max_size=2) | JSON},
    optional={
        "id": JSON,
        "outputs": st.lists(st.fixed_dictionaries({"name": JSON}), max_size=2) | JSON,
        "parameters": JSON,
    },
)
PATH_CHARACTERS = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#?%")
HEADER_LENGTH = st.none() | st.integers(-1, 400).map(str) | st.text("0123456789x²", max_size=3)


@pytest.fixture(scope="module")
def url(start_server, trained: SimpleNamespace) -> str:
    server = start_server(trained.model)
    return server.url


@pytest.fixture(scope="module")
def http() -> httpx.Client:
    return httpx.Client(timeout=TIMEOUT_SECONDS)


def check(response: httpx.Response) -> None:
    assert response.status_code < 500, response.text
    if response.status_code != 200:
        assert response.json()["error"]


@FUZZED
@given(body=st.fixed_dictionaries({"instances": st.lists(INSTANCE, max_size=3) | JSON}) | JSON)
def test_v1(url: str, http: httpx.Client, body: object) -> None:
    check(http.post(f"{url}/v1/models/digits:predict", content=json.dumps(body)))


@FUZZED
@given(body=V2 | JSON, raw=st.binary(max_size=40) | st.just(bytes(784)), exact=st.booleans(), other=HEADER_LENGTH)
def test_v2(url: str, http: httpx.Client, body: object, raw: bytes, exact: bool, other: str | None) -> None:
    header = json.dumps(body).encode()
    length = str(len(header)) if exact else other
    headers = {} if length is None else {b"inference-header-content-length": length.encode("utf-8")}
    check(http.post(f"{url}/v2/models/digits/infer", content=header + raw, headers=headers))


@FUZZED
@given(body=st.binary(max_size=200))
@pytest.mark.parametrize("path", ["/v1/models/digits:predict", "/v2/models/digits/infer"])
def test_bytes(url: str, http: httpx.Client, path: str, body: bytes) -> None:
    check(http.post(url + path, content=body))


@FUZZED
@given(
    path=st.text(PATH_CHARACTERS, max_size=40),
    method=st.sampled_from(["GET", "POST", "PUT", "HEAD"]),
)
def test_paths(url: str, http: httpx.Client, path: str, method: str) -> None:
    response = http.request(method, f"{url}/v2/models/{path}")
    assert response.status_code < 500
