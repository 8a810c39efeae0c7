"""Every way an endpoint can fail, on a real server: what is kept, counted, said and not sent."""

import asyncio
import contextlib
import email.utils
import json
import socket
import subprocess
import sys
import threading
import time

import pytest
from chat_server import (
    PASSAGES,
    check_sums,
    completion,
    error,
    obliging,
    passage_in,
    queries,
    running,
)
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from retrieval_ft.errors import ConfigError, DependencyError
from retrieval_ft.mining.synthetic.asking import Backoff
from retrieval_ft.mining.synthetic.client import retry_after

KEY = "sk-very-secret-0123456789"
_BODY = json.dumps(completion(queries("what is it"), usage=(1, 1))).encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


@contextlib.contextmanager
def bare(serve):
    """A socket server on loopback that does to each connection what `serve` says; its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    starting = asyncio.run_coroutine_threadsafe(asyncio.start_server(serve, "127.0.0.1", 0), loop)
    server = starting.result(10)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fails(write, config, *args, **more):
    """The message of the DependencyError that the call ends with."""
    with pytest.raises(DependencyError) as caught:
        write(config, *args, **more)
    assert caught.value.exit_code == 5
    return str(caught.value)


def first_then(count, later):
    """A server that obliges `count` times and then does something else."""
    return lambda number, body: obliging(number, body) if number <= count else later


# The endpoint is down


def test_an_endpoint_that_is_down_is_named_with_what_to_do(config, write):
    url = f"http://127.0.0.1:{free_port()}/v1"
    started = time.monotonic()
    said = fails(write, config.model_copy(update={"base_url": url}))
    assert time.monotonic() - started < 5
    for part in (
        url,
        "synthetic.base_url",
        "cannot be reached",
        "start it, or correct the address",
    ):
        assert part in said
    assert "0 questions are answered" in said


def test_a_host_that_does_not_exist_is_named(config, write):
    said = fails(write, config.model_copy(update={"base_url": "http://nowhere.invalid/v1"}))
    assert "http://nowhere.invalid/v1" in said and "cannot be reached" in said


def test_an_endpoint_that_goes_down_half_way_leaves_its_answers_in_the_cache(
    config, write, tmp_path
):
    config = config.model_copy(update={"concurrency": 1})
    with running() as mortal:
        write(config.model_copy(update={"base_url": mortal.url}), PASSAGES[:5])
        gone = config.model_copy(update={"base_url": mortal.url})
    said = fails(write, gone)
    for part in ("5 questions are answered", str(tmp_path / "cache"), "7 are left", "run again"):
        assert part in said
    assert len(write(gone, PASSAGES[:5]).pairs) == 5  # nothing to ask: nobody is called


def test_a_connection_that_ends_midway_is_tried_again(config, write):
    calls = []

    async def serve(reader, writer):
        calls.append(await reader.readuntil(b"\r\n\r\n"))
        if len(calls) > 1:
            writer.write(ANSWER)
            await writer.drain()
        writer.close()

    with bare(serve) as url:
        result = write(config.model_copy(update={"base_url": url}), PASSAGES[:1])
    assert len(calls) == 2 and len(result.pairs) == 1
    assert result.estimated_tokens > 0  # the first may have been billed


# Keys, models, addresses


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_not_tried_again_and_never_shown(
    server, config, write, monkeypatch, capsys, status
):
    monkeypatch.setenv("MY_KEY", KEY)
    server.answer = lambda n, b: error(status, f"Incorrect API key provided: {KEY}")
    alone = config.model_copy(update={"api_key_variable": "MY_KEY", "concurrency": 1})
    said = fails(write, alone)
    assert len(server.requests) == 1
    assert server.requests[0][0]["authorization"] == f"Bearer {KEY}"
    for part in ("refused the key", "environment variable MY_KEY", f"status {status}", server.url):
        assert part in said
    shown = said + "".join(capsys.readouterr())
    assert KEY not in shown and "very-secret" not in shown


def test_no_key_is_none_for_a_server_on_this_machine(server, config, write):
    write(config, PASSAGES[:1])
    assert server.requests[0][0]["authorization"] == "Bearer none"
    server.answer = lambda n, b: error(401)
    said = fails(write, config, PASSAGES[1:2])
    assert "a request without a key: the environment variable OPENAI_API_KEY is not set" in said


def test_a_missing_key_is_an_error_before_anything_is_sent_to_a_public_address(config, write):
    said = fails(write, config.model_copy(update={"base_url": "https://models.invalid/v1"}))
    for part in ("OPENAI_API_KEY", "synthetic.api_key_variable", "not set", "'none'"):
        assert part in said


def test_a_key_with_a_line_break_is_tidied_and_one_with_odd_letters_refused(
    server, config, write, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    write(config, PASSAGES[:1])
    assert server.requests[0][0]["authorization"] == f"Bearer {KEY}"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ключ")
    said = fails(write, config, PASSAGES[1:2])
    assert "OPENAI_API_KEY" in said and "ключ" not in said


def test_a_key_that_the_server_repeats_is_left_out(server, config, write, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.answer = lambda n, b: error(500, f"internal error for {KEY}\x1b[31m")
    said = fails(write, config)
    said += "".join(capsys.readouterr())
    assert "internal error for (the key)" in said and KEY not in said and "\x1b" not in said


def test_an_unknown_model_is_named(server, config, write):
    server.answer = lambda n, b: error(404, "The model `small` does not exist")
    said = fails(write, config.model_copy(update={"concurrency": 1}))
    assert len(server.requests) == 1
    for part in ("status 404", "does not exist", "synthetic.model ('small')", "/v1"):
        assert part in said


def test_a_wrong_path_says_where_an_address_ends(server, config, write):
    said = fails(write, config.model_copy(update={"base_url": server.url[:-3]}))
    assert "status 404" in said and "mostly ends in /v1" in said


def test_a_redirect_is_not_followed_with_texts_and_key(server, config, write, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with running() as elsewhere:
        target = f"{elsewhere.url}/chat/completions"
        for status in (301, 302, 307, 308):
            server.answer = lambda n, b, status=status: RedirectResponse(target, status)
            said = fails(write, config)
            assert target in said and "not followed" in said
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base_url": None}, "synthetic.base_url: not set"),
        ({"base_url": "ftp://a/v1"}, "'ftp://a/v1' is no http or https address"),
        ({"base_url": "http:///v1"}, "is no http or https address"),
        ({"base_url": "http://[::1/v1"}, "is no http or https address"),
        ({"base_url": "http://127.0.0.1:99999/v1"}, "is no http or https address"),
        ({"model": ""}, "synthetic.model: not set"),
        ({"kinds": ()}, "synthetic.kinds: empty"),
    ],
)
def test_a_section_that_cannot_work_is_refused(config, write, change, said):
    with pytest.raises(ConfigError) as caught:
        write(config.model_copy(update=change))
    assert said in str(caught.value)


def test_a_password_in_the_address_is_not_shown(server, config, write):
    server.answer = lambda n, b: error(404)
    url = server.url.replace("http://", "http://user:pass-word@")
    said = fails(write, config.model_copy(update={"base_url": url}))
    assert server.url in said and "pass-word" not in said


def test_without_the_package_the_extra_is_named(tmp_path):
    code = (
        "import sys; sys.modules['openai'] = None\n"
        "from pathlib import Path\n"
        "from retrieval_ft.config import SyntheticConfig\n"
        "from retrieval_ft.errors import DependencyError\n"
        "from retrieval_ft.mining.synthetic import write_queries\n"
        "config = SyntheticConfig(base_url='http://127.0.0.1:9/v1', model='m')\n"
        "try:\n"
        "    write_queries([('a', 'b')], config=config, examples=[], cache=Path(sys.argv[1]),\n"
        "        seed=1, scrub=str)\n"
        "except DependencyError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "'openai', which is not installed" in run.stdout, run.stderr
    assert "pip install 'retrieval-ft[synthetic]'" in run.stdout


# Too much, too slow, now and then


@pytest.mark.parametrize("headers", [None, {"Retry-After": "0"}, {"Retry-After": "soon"}])
def test_a_rate_limit_is_waited_out(server, config, write, capsys, headers):
    seen = set()

    def limited(number, body):
        if passage_in(body) in seen:
            return obliging(number, body)
        seen.add(passage_in(body))
        return error(429, "slow down", headers=headers)

    server.answer = limited
    result = write(config)
    check_sums(result)
    assert len(result.pairs) == 12 and result.account.requests == 24
    assert result.account.failed == {} and result.stopped_by is None
    assert capsys.readouterr().err.count("status 429: slow down") == 1  # said once, not 12 times


@pytest.mark.parametrize("headers", [{"Retry-After": "0.4"}, {"retry-after-ms": "400"}])
def test_a_server_that_says_how_long_to_wait_is_obeyed(server, config, write, headers):
    server.answer = lambda n, b: error(429, headers=headers) if n == 1 else obliging(n, b)
    result = write(config, PASSAGES[:1])
    assert len(result.pairs) == 1
    assert server.at[1] - server.at[0] >= 0.4


def test_a_server_that_asks_for_an_hour_is_not_waited_for(server, config, write):
    server.answer = first_then(4, error(429, "quota of the hour", headers={"Retry-After": "3600"}))
    started = time.monotonic()
    result = write(config.model_copy(update={"concurrency": 1}))
    assert time.monotonic() - started < 5
    assert result.stopped_by == "endpoint" and len(result.pairs) == 4
    assert "it asks to wait 3,600 s" in result.message


def test_retry_after_is_read_in_all_its_forms():
    assert retry_after({}) is None
    assert retry_after({"retry-after": "7"}) == 7.0
    assert retry_after({"retry-after-ms": "1500", "retry-after": "7"}) == 1.5
    assert retry_after({"retry-after-ms": "x", "retry-after": "7"}) == 7.0
    for nonsense in ("", "soon", "-3", "nan", "inf", "Mon, 99 Foo"):
        assert retry_after({"retry-after": nonsense}) is None, nonsense
    date = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert 55 < retry_after({"retry-after": date}) <= 60
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0


def test_waits_double_up_to_a_longest():
    backoff = Backoff(first_s=1.0, longest_s=10.0)
    for attempt, expected in enumerate([1.0, 2.0, 4.0, 8.0, 10.0, 10.0]):
        assert 0.75 * expected <= backoff.wait(attempt) <= expected
    assert backoff.wait(5_000 % 1_000) <= 10.0


def test_a_server_that_always_rate_limits_ends_with_what_there_is(server, config, write, capsys):
    server.answer = first_then(5, error(429, "slow down"))
    result = write(config.model_copy(update={"concurrency": 1}))
    check_sums(result)
    assert result.stopped_by == "endpoint"
    assert len(result.pairs) == 5 == result.account.answered
    assert result.account.failed == {"rate_limited": 3} and result.account.not_asked == 4
    assert result.account.requests == 5 + 3 * 3  # three questions, each tried three times
    for part in ("status 429", "5 questions are answered", "run again to go on"):
        assert part in result.message and part in capsys.readouterr().err + result.message
    server.answer = obliging
    assert len(write(config).pairs) == 12  # running again is going on


def test_a_server_that_rate_limits_from_the_start_is_an_error(server, config, write):
    server.answer = lambda n, b: error(429, "slow down")
    said = fails(write, config)
    assert "status 429: slow down" in said and "0 questions are answered" in said
    assert "status 429" in fails(write, config, PASSAGES[:1])  # however few are asked


def test_an_empty_account_is_not_tried_again(server, config, write):
    for reply in (error(429, "no quota", code="insufficient_quota"), error(402, "no credit")):
        server.reset()
        server.answer = lambda n, b, reply=reply: reply
        said = fails(write, config.model_copy(update={"concurrency": 1}))
        assert len(server.requests) == 1 and ("no quota" in said or "no credit" in said)


def test_errors_now_and_then_are_got_over(server, config, write):
    statuses = [500, 502, 503, 529, 408, 409]
    server.answer = lambda n, b: obliging(n, b) if n % 2 == 0 else error(statuses[n // 2 % 6])
    result = write(config.model_copy(update={"concurrency": 1}))
    assert len(result.pairs) == 12 and result.account.requests == 24


def test_one_passage_that_always_fails_is_counted_and_passed_over(server, config, write):
    def model(number, body):
        return error(500, "boom") if "library of Brede" in passage_in(body) else obliging(0, body)

    server.answer = model
    result = write(config.model_copy(update={"concurrency": 1}))
    check_sums(result)
    assert len(result.pairs) == 11 and result.account.failed == {"server_error": 1}
    assert result.stopped_by is None


def test_no_retries_means_none(server, config, write):
    server.answer = lambda n, b: obliging(n, b) if n % 2 else error(500)
    result = write(config.model_copy(update={"retries": 0, "concurrency": 1}))
    check_sums(result)
    assert len(server.requests) == 12 and result.account.failed == {"server_error": 6}


def test_a_slow_server_is_given_up_after_the_timeout(server, config, write):
    async def slow(number, body):
        await asyncio.sleep(1.0)
        return obliging(number, body)

    server.answer = slow
    quick = config.model_copy(update={"timeout_s": 0.1, "retries": 1})
    said = fails(write, quick)
    assert "no answer within 0.1 s (synthetic.timeout_s)" in said


def test_an_answer_that_drips_is_given_up_too(config, write):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(60):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()

    with bare(serve) as url:
        quick = config.model_copy(update={"base_url": url, "timeout_s": 0.3, "retries": 0})
        started = time.monotonic()
        assert "no answer within 0.3 s" in fails(write, quick, PASSAGES[:1])
        assert time.monotonic() - started < 2.5


# What a request is refused for


def test_a_passage_that_is_too_long_is_counted_and_skipped(server, config, write):
    def model(number, body):
        text = passage_in(body)
        return error(400, "maximum context length") if len(text) > 1000 else obliging(0, body)

    server.answer = model
    passages = [*PASSAGES[:3], ("long", "word " * 500)]
    result = write(config, passages)
    check_sums(result)
    assert len(result.pairs) == 3 and result.account.failed == {"rejected": 1}
    assert result.account.requests == 4 and result.stopped_by is None


def test_a_request_that_is_always_rejected_says_why_and_soon(server, config, write):
    many = [(f"m{i}", f"Passage number {i} of many.") for i in range(80)]
    server.answer = lambda n, b: error(400, "temperature must be 1")
    said = fails(write, config, many)
    assert "status 400: temperature must be 1" in said
    assert len(server.requests) < 30
    assert "temperature must be 1" in fails(write, config, many[:2])


def test_a_model_that_knows_only_the_new_name_of_the_cap_gets_it(server, config, write):
    async def model(number, body):
        await asyncio.sleep(0.02)
        if "max_tokens" in body:
            return error(400, "Unsupported parameter: use 'max_completion_tokens' instead.")
        return obliging(number, body)

    server.answer = model
    result = write(config)
    assert len(result.pairs) == 12 and result.account.failed == {}
    assert 12 < len(server.requests) <= 12 + config.concurrency


# Garbage


@pytest.mark.parametrize(
    "reply",
    [
        HTMLResponse("<html><body>Sign in</body></html>"),
        PlainTextResponse("ok"),
        Response(b"{not json", media_type="application/json"),
        Response(b"[1, 2]", media_type="application/json"),
        Response(b"null", media_type="application/json"),
        Response(b"", media_type="application/json"),
        Response(b"\xff\xfe{}", media_type="application/json"),
        Response(b"[" * 100_000, media_type="application/json"),
        Response(b'{"choices": []}', media_type="application/json"),
        Response(b'{"choices": [7]}', media_type="application/json"),
        Response(b'{"choices": {"a": 1}}', media_type="application/json"),
    ],
)
def test_what_is_no_chat_completion_is_asked_for_again_once_and_then_said(
    server, config, write, reply
):
    server.answer = lambda n, b: reply
    said = fails(write, config.model_copy(update={"concurrency": 1, "retries": 5}), PASSAGES[:5])
    assert "not with a chat completion" in said and "/v1" in said
    assert len(server.requests) == 3 * 2
    server.reset()
    server.answer = lambda n, b: obliging(n, b) if n % 2 == 0 else reply
    result = write(config.model_copy(update={"concurrency": 1}), PASSAGES[:2])
    assert len(result.pairs) == 2 and result.account.failed == {}


def test_an_error_under_status_200_is_shown(server, config, write):
    server.answer = lambda n, b: {"error": {"message": "the provider is asleep", "code": 502}}
    assert "chat completion: the provider is asleep" in fails(write, config, PASSAGES[:1])


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (completion("I'm sorry, I can't help with that."), "garbage"),
        (completion('{"queries": "..."}'), "garbage"),
        (completion('{"queries": ["what is'), "garbage"),
        (completion(None), "empty"),
        (completion(""), "empty"),
        (completion('{"queries": ["what', finish="length"), "cut_short"),
        (completion(None, finish="length"), "cut_short"),
        ({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 0}}, "empty"),
        ({"choices": [{}]}, "empty"),
        ({"choices": [{"message": "hello"}]}, "empty"),
        ({"choices": [{"message": {"content": ["a"]}}]}, "empty"),
    ],
)
def test_a_useless_answer_is_asked_for_again_once_and_then_counted(
    server, config, write, reply, reason
):
    def model(number, body):
        return reply if "Ault" in passage_in(body) else obliging(number, body)

    server.answer = model
    result = write(config, PASSAGES[:4])
    check_sums(result)
    assert result.account.failed == {reason: 2} and len(result.pairs) == 2
    assert len(server.requests) == 2 + 2 * 2
    strict = [prompt for prompt in server.prompts if "last answer could not be read" in prompt]
    assert len(strict) == 2


def test_a_second_answer_that_can_be_read_is_used(server, config, write):
    def model(number, body):
        again = "last answer could not be read" in body["messages"][0]["content"]
        return obliging(number, body) if again else completion("{oh")

    server.answer = model
    result = write(config)
    check_sums(result)
    assert len(result.pairs) == 12 and len(server.requests) == 24
    assert write(config).pairs == result.pairs and len(server.requests) == 24


def test_a_model_that_writes_nothing_but_garbage_is_stopped_before_it_costs_all(
    server, config, write
):
    many = [(f"m{i}", f"Passage number {i} of many.") for i in range(80)]
    server.answer = lambda n, b: completion("{oh no", usage=(5, 5))
    said = fails(write, config, many)
    assert "writes no queries; it last answered '{oh no'" in said
    assert len(server.requests) < 60


# Privacy


def test_nothing_about_this_machine_is_sent(server, config, write):
    write(config)
    for headers, body in server.requests:
        about = {name for name in headers if name.startswith("x-stainless")}
        assert about <= {"x-stainless-raw-response"}
        assert set(body) == {"model", "messages", "temperature", "max_tokens"}
        assert set(headers) - about <= {
            *("host", "accept", "accept-encoding", "connection", "content-type"),
            *("content-length", "user-agent", "authorization"),
        }


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    server, config, write, monkeypatch
):
    dead = f"http://127.0.0.1:{free_port()}"
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, dead)
        monkeypatch.setenv(name.upper(), dead)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert len(write(config).pairs) == 12
    remote = config.model_copy(update={"base_url": "http://models.invalid/v1", "retries": 0})
    assert "cannot be reached" in fails(write, remote, PASSAGES[:1], seed=1)


def test_a_proxy_of_the_environment_is_used_for_others(config, write, monkeypatch):
    asked = []

    async def proxy(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    with bare(proxy) as url:
        monkeypatch.setenv("http_proxy", url.removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        remote = config.model_copy(update={"base_url": "http://models.invalid/v1"})
        assert len(write(remote, PASSAGES[:1]).pairs) == 1
    assert asked == [b"POST http://models.invalid/v1/chat/completions HTTP/1.1"]


def test_a_proxy_that_cannot_be_used_is_a_clear_error(config, write, monkeypatch):
    monkeypatch.setenv("http_proxy", "gopher://127.0.0.1:1")
    remote = config.model_copy(update={"base_url": "http://models.invalid/v1"})
    with pytest.raises(ConfigError, match="proxy that the environment names"):
        write(remote)
