"""An embeddings endpoint as an encoder: what it gives, what it keeps, and every way it can fail."""

import json
import socket
import subprocess
import sys

import embeddings_server
import numpy as np
import pytest
from embeddings_server import WIDTH, embeddings, obliging, vector
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from retrieval_ft.encoder.endpoint import BATCH, RETRIES, EndpointEncoder
from retrieval_ft.endpoints import Backoff
from retrieval_ft.errors import ConfigError, DependencyError

pytestmark = pytest.mark.usefixtures("no_key")
QUICK = Backoff(first_s=0.01, longest_s=0.05)
KEY = "sk-very-secret-0123456789"
TEXTS = [f"text number {i}" for i in range(150)]


@pytest.fixture(scope="module")
def one_server():
    with embeddings_server.running() as server:
        yield server


@pytest.fixture
def server(one_server):
    one_server.reset()
    return one_server


@pytest.fixture
def encoder(server, tmp_path):
    return remote(server.url, tmp_path / "cache")


def remote(url, cache=None, **more):
    more = {"model": "small", "place": "--endpoint x", "backoff": QUICK, **more}
    return EndpointEncoder(url, more.pop("model"), cache_root=cache, **more)


def fails(encoder, texts=("a", "b")):
    with pytest.raises(DependencyError) as caught:
        encoder.encode(texts, role="passage")
    assert caught.value.exit_code == 5
    assert "--endpoint x" in str(caught.value)
    return str(caught.value)


def expected(texts):
    rows = np.array([vector(text) for text in texts])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_vectors_are_the_servers_at_length_one_in_the_order_of_the_texts(encoder, server):
    texts = [*TEXTS, TEXTS[3], ""]
    found = encoder.encode(texts, role="query")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected([text or " " for text in texts]))
    bodies = [body for _, body in server.requests]
    assert {body["encoding_format"] for body in bodies} == {"float"}
    assert {body["model"] for body in bodies} == {"small"}
    assert max(len(body["input"]) for body in bodies) == BATCH
    assert sorted(server.texts) == sorted([*TEXTS, " "])  # each text once


def test_no_text_is_no_request(encoder, server):
    assert encoder.encode([], role="query").shape == (0, 0)
    assert server.requests == []


def test_a_text_is_asked_for_once_whatever_its_role_and_again_for_another_model(
    encoder, server, tmp_path
):
    first = encoder.encode(TEXTS[:3], role="passage")
    again = remote(server.url, tmp_path / "cache")
    np.testing.assert_array_equal(again.encode(TEXTS[:3], role="query"), first)
    assert len(server.requests) == 1
    remote(server.url, tmp_path / "cache", model="other").encode(TEXTS[:1], role="query")
    assert len(server.requests) == 2


def test_what_had_arrived_before_a_fault_is_not_asked_for_again(encoder, server, tmp_path):
    server.answer = lambda n, b: obliging(n, b) if n == 1 else error(400, "too long")
    assert "status 400: too long" in fails(encoder, TEXTS)
    server.reset()
    np.testing.assert_array_equal(
        remote(server.url, tmp_path / "cache").encode(TEXTS, role="passage"), expected(TEXTS)
    )
    assert sorted(server.texts) == sorted(TEXTS[BATCH:])


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_fault_that_passes_is_tried_again(encoder, server, status, capsys):
    server.answer = lambda n, b: obliging(n, b) if n > 2 else error(status, "later")
    np.testing.assert_array_equal(encoder.encode(["a"], role="query"), expected(["a"]))
    assert len(server.requests) == 3
    assert f"status {status}: later; waiting, then trying again" in capsys.readouterr().err


def test_a_fault_that_stays_ends_after_a_bounded_number_of_tries(encoder, server):
    server.answer = lambda n, b: error(429, "busy")
    assert "status 429: busy" in fails(encoder)
    assert len(server.requests) == RETRIES + 1


def test_an_endpoint_that_asks_to_wait_for_long_is_not_waited_for(encoder, server):
    server.answer = lambda n, b: error(429, "busy", headers={"retry-after": "3600"})
    assert "it asks to wait 3,600 s" in fails(encoder)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_named_by_its_variable_and_never_shown(
    server, monkeypatch, capsys, status
):
    monkeypatch.setenv("MY_KEY", KEY)
    server.answer = lambda n, b: error(status, f"Incorrect API key provided: {KEY}")
    said = fails(remote(server.url, key_variable="MY_KEY"))
    assert server.requests[0][0]["authorization"] == f"Bearer {KEY}"
    assert len(server.requests) == 1
    assert "refused the key of the environment variable MY_KEY" in said
    assert "--api-key-variable names the variable" in said
    assert KEY not in said + "".join(capsys.readouterr())


def test_a_server_of_ones_own_needs_no_key_and_another_does(encoder, server):
    encoder.encode(["a"], role="query")
    headers = server.requests[0][0]
    assert headers["authorization"] == "Bearer none"
    about = {name for name in headers if name.startswith("x-stainless")}
    assert about <= {"x-stainless-raw-response"}  # nothing about this machine
    with pytest.raises(DependencyError, match="environment variable OPENAI_API_KEY") as caught:
        remote("https://example.invalid/v1")
    assert caught.value.exit_code == 5


def test_an_endpoint_that_is_down_is_named_with_what_to_do():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    said = fails(remote(url))
    assert url in said and "cannot be reached" in said and "start it" in said


def test_a_redirect_is_not_followed(encoder, server):
    server.answer = lambda n, b: RedirectResponse("http://elsewhere.invalid/v1/embeddings", 307)
    assert "sends on to 'http://elsewhere.invalid/v1/embeddings'" in fails(encoder)
    assert len(server.requests) == 1


def without_last(body):
    body["data"] = body["data"][:-1]
    return body


def same_index(body):
    return {"data": [{**row, "index": 0} for row in body["data"]]}


def with_row(row):
    def change(body):
        body["data"][0]["embedding"] = row
        return body

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_last, "gave 1 vectors for 2 texts"),
        (same_index, "gave 2 vectors for 2 texts, or not one for each"),
        (with_row([float("nan")] * WIDTH), "holds NaN or infinity"),
        (with_row([float("inf")] * WIDTH), "holds NaN or infinity"),
        (with_row([0.0] * WIDTH), "a vector of zeros"),
        (with_row(["x"] * WIDTH), "does not hold numbers"),
        (with_row([[1.0]] * WIDTH), "does not hold numbers"),
        (with_row([1.0] * 3), f"vectors of 3, {WIDTH} numbers"),
        (with_row([]), "vectors of 0"),
        (with_row("AAAA"), "not one for each"),
        (lambda body: {"data": None}, "not with embeddings"),
        (lambda body: {"error": {"message": "no such route"}}, "no such route"),
        (lambda body: [1], "not with embeddings"),
    ],
)
def test_an_answer_that_is_not_one_good_vector_a_text_is_refused(encoder, server, change, said):
    def answer(number, body):
        text = json.dumps(change(embeddings(body["input"])))  # writes NaN, as many servers do
        return Response(text, media_type="application/json")

    server.answer = answer
    assert said in fails(encoder)
    assert len(server.requests) == 1


def test_a_page_instead_of_an_answer_is_said(encoder, server):
    server.answer = lambda n, b: HTMLResponse("<html>hello</html>")
    assert "a page of HTML; check the address, which mostly ends in /v1" in fails(encoder)


def test_another_width_than_that_of_earlier_vectors_is_refused(encoder, server, tmp_path):
    encoder.encode(["a"], role="query")
    server.answer = lambda n, b: embeddings(b["input"], width=5)
    said = fails(remote(server.url, tmp_path / "cache"), ["b"])
    assert f"vectors of 5 numbers where {WIDTH} are expected" in said
    assert str(tmp_path / "cache") in said


def test_a_wrong_model_or_address_is_named(encoder, server):
    server.answer = lambda n, b: error(404, "model not found")
    assert "check the model of --endpoint x ('small') and the address" in fails(encoder)


@pytest.mark.parametrize("url", ["http://", "ftp://a/v1", "http://a:99999/v1"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match="no http or https address"):
        remote(url)


def test_a_password_in_the_address_is_not_written_down(server, tmp_path):
    url = server.url.replace("//", "//name:secret@")
    remote(url, tmp_path / "cache").encode(["a"], role="query")
    kept = next((tmp_path / "cache").rglob("endpoint.json")).read_text()
    assert "secret" not in kept and json.loads(kept)["dimension"] == WIDTH


def test_without_the_package_the_pip_line_is_said_and_no_torch_is_needed():
    script = (
        "import sys\n"
        "sys.modules['openai'] = None\n"
        "from retrieval_ft.encoder.endpoint import EndpointEncoder\n"
        "from retrieval_ft.errors import DependencyError\n"
        "try:\n    EndpointEncoder('http://127.0.0.1:1/v1', 'm')\n"
        "except DependencyError as error:\n    print(error)\n"
        "assert 'torch' not in sys.modules\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'retrieval-ft[synthetic]'" in run.stdout


def error(status, message, *, headers=None):
    return JSONResponse({"error": {"message": message}}, status, headers)


def test_a_server_that_takes_fewer_texts_at_once_is_asked_in_halves(server, encoder):
    def small(number, body):
        if len(body["input"]) > 32:
            return JSONResponse({"error": {"message": "batch size 64 > maximum 32"}}, 422)
        return obliging(number, body)

    server.answer = small
    found = encoder.encode(TEXTS, role="passage")
    assert np.allclose(found, expected(TEXTS), atol=1e-6)
    # Once too many, then halves; and never again as many.
    assert [len(body["input"]) > 32 for _, body in server.requests].count(True) == 1
