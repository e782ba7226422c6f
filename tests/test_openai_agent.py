"""The agent `openai` against a server of ours on a real socket. Time is real: waits are for something."""

import contextlib
import gzip
import json
import logging
from collections import Counter
from email.utils import formatdate
from itertools import pairwise

import httpx2
import pytest
import trio

from gateway_trio.agent_tables import OpenAIAgentConfig
from gateway_trio.agents import (
    AgentUnusable,
    BackendRejected,
    BackendUnavailable,
    HistoryItem,
    Stop,
    TextDelta,
    ThoughtDelta,
    Turn,
    Usage,
)
from gateway_trio.agents.openai import OpenAIAgent
from gateway_trio.agents.openai_http import retry_after
from gateway_trio.core.chat_stream import INTERRUPTED, EventStream
from model_server import DONE, RESET, STALL, ModelServer, delta, event, fault, head, stream

KEY = "sk-12345678"


class Lab:
    """An agent, its server, and what it emitted."""

    def __init__(self, server, agent):
        self.server = server
        self.agent = agent
        self.emitted = []
        self.draining = trio.Event()

    async def run(self, text, history=()):
        turn = Turn("s", "t", text, (), tuple(history), "p", self.draining, trio.CapacityLimiter(1))
        await self.agent.run(turn, self.emit)

    async def emit(self, emission):
        await trio.lowlevel.checkpoint()
        self.emitted.append(emission)

    async def fails(self, text, kind):
        with pytest.raises(kind) as caught:
            await self.run(text)
        return caught.value

    @property
    def text(self):
        return "".join(e.text for e in self.emitted if isinstance(e, TextDelta))

    def replies(self, *replies):
        self.server.replies["hi"] = list(replies)

    def sent(self, at=-1):
        return self.server.requests[at]["body"]


@pytest.fixture
def server():
    with ModelServer() as model:
        yield model


@pytest.fixture
async def make(server):
    agents = []

    def build(key=None, **more):
        config = OpenAIAgentConfig(base_url=server.url, model="m", **{"max_retries": 0, **more})
        agents.append(OpenAIAgent(config, key))
        return Lab(server, agents[-1])

    with trio.fail_after(60):
        yield build
        for agent in agents:
            await agent.aclose()


# --- a good answer ----------------------------------------------------------------------------------


async def test_an_answer_comes_as_it_is_made(make):
    lab = make(context_tokens=1000)
    lab.replies(stream("hel", "lo", total=12))
    await lab.run("hi")
    assert lab.emitted == [TextDelta("hel"), TextDelta("lo"), Usage(12, 1000)]


async def test_a_delta_is_emitted_before_the_next_has_come(make):
    lab = make()
    lab.replies([head(), delta(content="a"), STALL])
    came = trio.Event()

    async def emit(emission):
        assert emission == TextDelta("a")
        came.set()

    lab.emit = emit
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lab.run, "hi")
        await came.wait()
        nursery.cancel_scope.cancel()


async def test_thoughts_are_told_apart(make):
    lab = make()
    lab.replies([head(), delta(reasoning_content="hm"), delta(content="a"), delta("stop"), DONE])
    await lab.run("hi")
    assert lab.emitted == [ThoughtDelta("hm"), TextDelta("a")]


async def test_an_emoji_in_two_deltas_is_one_character(make):
    lab = make()
    lab.replies(stream("a\ud83d", "\ude00", "b\ud83d"))
    await lab.run("hi")
    assert [e.text for e in lab.emitted if isinstance(e, TextDelta)] == ["a", "😀", "b", "\ufffd"]


async def test_half_a_character_is_emitted_where_the_answer_broke_off_and_prevents_no_other_try(make, server):
    lab = make(max_retries=1)
    lab.replies([head(), delta(content="\ud83d")], [head(), delta(content="a\ud83d")])
    assert "ended in the middle" in str(await lab.fails("hi", BackendUnavailable))
    assert lab.emitted == [TextDelta("a"), TextDelta("\ufffd")]
    assert len(server.requests) == 2


async def test_usage_is_told_only_where_the_size_of_the_context_is_known(make):
    lab = make()
    lab.replies(stream("a", total=5))
    await lab.run("hi")
    assert lab.emitted == [TextDelta("a")]
    assert lab.sent()["stream_options"] == {"include_usage": True}


async def test_an_answer_that_met_the_models_limit_says_so(make):
    lab = make()
    lab.replies(stream("a", finish="length"))
    await lab.run("hi")
    assert lab.emitted == [TextDelta("a"), Stop("max_tokens")]


async def test_the_model_is_sent_the_system_prompt_and_the_newest_of_the_history(make):
    lab = make(system_prompt="be brief", max_history_messages=2)
    old = [HistoryItem("user", "old"), HistoryItem("assistant", "OLD")]
    new = [HistoryItem("user", "new"), HistoryItem("assistant", "half", interrupted=True)]
    await lab.run("hi", old + new)
    assert [(m["role"], m["content"]) for m in lab.sent()["messages"]] == [
        ("system", "be brief"),
        ("user", "new"),
        ("assistant", f"half\n\n{INTERRUPTED}"),
        ("user", "hi"),
    ]
    assert (lab.sent()["model"], lab.sent()["stream"]) == ("m", True)


@pytest.mark.parametrize("status", ["302 Found", "307 Temporary Redirect"])
async def test_a_redirection_is_not_followed(make, server, status):
    lab = make(KEY)
    with ModelServer() as other:
        lab.replies([head(status, Location=f"{other.url}/chat/completions")])
        assert f"({status[:3]})" in str(await lab.fails("hi", BackendUnavailable))
        server.models = [head(status, Location=f"{other.url}/models")]
        with pytest.raises(BackendUnavailable):
            await lab.agent.probe()
        assert other.connections == 0


@pytest.mark.parametrize(("key", "sent"), [(None, None), (KEY, f"Bearer {KEY}")])
async def test_the_key_is_sent_where_there_is_one(make, server, key, sent, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-endpoint")
    lab = make(key)
    await lab.run("hi")
    assert server.requests[0]["headers"].get("authorization") == sent


async def test_a_connection_is_used_again(make, server):
    def chunked(steps):
        start = head(Transfer_Encoding="chunked", Connection="")
        return [start, *(b"%x\r\n%s\r\n" % (len(step), step) for step in steps), b"0\r\n\r\n"]

    lab = make()
    lab.replies(chunked([delta(content="a"), delta("stop"), DONE]))
    for _ in range(3):
        await lab.run("hi")
    assert (lab.text, server.connections) == ("aaa", 1)


async def test_what_is_left_open_behind_done_is_closed(make, server):
    lab = make()
    lab.replies([head(), delta(content="a"), delta("stop"), DONE, STALL])
    await lab.run("hi")
    assert lab.text == "a"
    assert await trio.to_thread.run_sync(server.gone.get, True, 20) == "hi"


# --- what a stream can do wrong: case 61 ------------------------------------------------------------

BROKEN = {
    "a page": ([head(kind="text/html"), b"<html>a login page</html>"], "text/html in the place of"),
    "a whole completion": (
        [head(kind="application/json"), b'{"choices": []}'],
        "application/json in the place of",
    ),
    "nothing": ([head()], "ended without an answer"),
    "only [DONE]": ([head(), DONE], "ended without an answer"),
    "only a role": ([head(), delta(role="assistant", content=""), DONE], "ended without an answer"),
    "no end": ([head(), delta(content="a")], "ended in the middle"),
    "half an event": ([head(), delta(content="a"), b'data: {"choi'], "no JSON"),
    "no JSON": ([head(), event("{not json")], "no JSON"),
    "no chunk": ([head(), event({"choices": [5]})], "no chunk"),
    "an error": (
        [head(), delta(content="a"), event({"error": {"message": "out of memory"}})],
        "broke off: out of memory",
    ),
    "an error alone": ([head(), event({"error": "out of memory"})], "broke off: out of memory"),
    "a torn connection": ([head(), delta(content="a"), RESET], "broke off"),
    "a short body": ([head(Content_Length="1000"), delta(content="a")], "broke off"),
    "torn before the head": ([RESET], "cannot be reached"),
    "no HTTP": ([b"hello, who is there?\r\n\r\n"], "cannot be reached"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_stream_is_a_failure_with_a_name(make, name):
    steps, said = BROKEN[name]
    lab = make()
    lab.replies(steps)
    assert said in str(await lab.fails("hi", BackendUnavailable))


@pytest.mark.parametrize("finish", ["content_filter", "tool_calls"])
async def test_an_end_that_is_no_answer_is_one_that_another_try_would_not_mend(make, server, finish):
    lab = make(max_retries=3)
    lab.replies(stream("a", finish=finish))
    await lab.fails("hi", BackendRejected)
    assert len(server.requests) == 1


@pytest.mark.parametrize("coding", ["gzip", "x-nobody-knows"])
async def test_an_answer_that_is_compressed_is_not_unpacked(make, server, coding):
    lab = make()
    lab.replies([head(Content_Encoding=coding), gzip.compress(b"\n" * 1_000_000 + b"".join(stream("a")[1:]))])
    said = "the model compresses its answer, though it was asked not to"
    assert str(await lab.fails("hi", BackendUnavailable)) == said
    assert server.requests[0]["headers"]["accept-encoding"] == "identity"


async def test_an_answer_may_say_that_it_is_not_compressed(make):
    lab = make()
    lab.replies([head(Content_Encoding="identity"), *stream("a")[1:]])
    await lab.run("hi")
    assert lab.text == "a"


# --- what a stream may cost the others --------------------------------------------------------------


@pytest.fixture
async def watched(monkeypatch):
    """Lists of what was read of responses and of what was taken apart: how often others ran, and how much it was."""
    turns, read, taken = 0, [], []
    aiter_raw, feed = httpx2.Response.aiter_raw, EventStream.feed

    async def watched_raw(response, *args):
        async with contextlib.aclosing(aiter_raw(response, *args)) as chunks:
            async for chunk in chunks:
                read.append((turns, len(chunk)))
                yield chunk

    def watched_feed(stream, chunk):
        taken.append((turns, len(chunk)))
        return feed(stream, chunk)

    monkeypatch.setattr(httpx2.Response, "aiter_raw", watched_raw)
    monkeypatch.setattr(EventStream, "feed", watched_feed)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def others():
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        yield read, taken
        nursery.cancel_scope.cancel()


def most_in_a_row(done) -> int:
    """Return how often something was done without a turn of others. Trio may let them run first, then last."""
    return max(Counter(turn for turn, _ in done).values())


def in_small_chunks(body: bytes) -> bytes:
    return b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"


ANSWER = b"".join(stream("a")[1:])


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("200 OK", b"\n" * 2000 + ANSWER),
        ("200 OK", ANSWER + b"\n" * 2000),
        ("401 Unauthorized", b"x" * 2000),
    ],
)
async def test_between_the_chunks_of_a_body_others_run(make, watched, status, body):
    """What is read at once of a socket may be thousands of them."""
    lab = make()
    lab.replies([head(status, Transfer_Encoding="chunked", Connection=""), in_small_chunks(body)])
    with contextlib.suppress(BackendRejected):
        await lab.run("hi")
    assert len(watched[0]) > 2
    assert most_in_a_row(watched[0]) <= 2


async def test_of_a_large_chunk_little_is_taken_apart_at_once(make, watched):
    lab = make()
    body = b"\n" * 200_000 + ANSWER
    lab.replies([head(Content_Length=str(len(body))), body])
    await lab.run("hi")
    assert lab.text == "a"
    assert most_in_a_row(watched[1]) <= 2
    assert max(size for _, size in watched[1]) <= 4096


# --- limits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [[STALL], [head(), STALL], [head(), delta(role="assistant", content=""), STALL]])
async def test_the_first_token_has_its_limit_and_the_connection_is_closed(make, server, steps):
    lab = make(first_token_seconds=0.3, max_retries=5)
    lab.replies(steps)
    assert "in time" in str(await lab.fails("hi", BackendUnavailable))
    assert await trio.to_thread.run_sync(server.gone.get, True, 20) == "hi"
    assert len(server.requests) == 1, "all tries together have this limit"


async def test_tokens_have_a_limit_between_them(make, server):
    lab = make(token_seconds=0.3, max_retries=5)
    lab.replies([head(), delta(content="a"), STALL])
    assert "in time" in str(await lab.fails("hi", BackendUnavailable))
    assert await trio.to_thread.run_sync(server.gone.get, True, 20) == "hi"
    assert (lab.text, len(server.requests)) == ("a", 1)


async def test_waiting_for_the_store_counts_for_no_limit_of_the_model(make):
    lab = make(token_seconds=0.2)
    lab.replies(stream("a", "b"))

    async def slow(emission):
        await trio.sleep(0.3)
        lab.emitted.append(emission)

    lab.emit = slow
    await lab.run("hi")
    assert lab.text == "ab"


async def test_cancelling_closes_the_connection(make, server):
    lab = make()
    lab.replies([head(), delta(content="a"), STALL])
    begun = trio.Event()

    async def emit(_):
        begun.set()

    lab.emit = emit
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lab.run, "hi")
        await begun.wait()
        nursery.cancel_scope.cancel()
    assert await trio.to_thread.run_sync(server.gone.get, True, 20) == "hi"


async def test_cancelling_closes_a_connection_that_waits_for_its_answer(make, server):
    lab = make()
    lab.replies([STALL])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lab.run, "hi")
        await trio.to_thread.run_sync(server.wait_for_request)
        nursery.cancel_scope.cancel()
    assert await trio.to_thread.run_sync(server.gone.get, True, 20) == "hi"


# --- refusals, and trying again: cases 62 and 63 ----------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("400 Bad Request", "context too long"),
        ("401 Unauthorized", "Incorrect API key provided"),
        ("403 Forbidden", "not in your country"),
        ("404 Not Found", "no model m"),
        ("422 Unprocessable Entity", "bad field"),
    ],
)
async def test_a_refusal_is_shown_and_not_tried_again(make, server, status, message):
    lab = make(max_retries=3)
    lab.replies(fault(status, message))
    shown = str(await lab.fails("hi", BackendRejected))
    assert shown == f"the model's provider refused ({status[:3]}: {message})"
    assert len(server.requests) == 1


async def test_a_refusal_without_a_sentence_has_its_number(make):
    lab = make()
    lab.replies([head("403 Forbidden", "text/html"), b"<html>"])
    assert "(403)" in str(await lab.fails("hi", BackendRejected))


BODIES = {
    "torn": [head("401 Unauthorized", Content_Length="999"), b'{"error": "no', RESET],
    "short": [head("401 Unauthorized", Content_Length="999"), b"bad sk-1234"],
    "packed, but not": [head("401 Unauthorized", "application/json", Content_Encoding="gzip"), b"zzzz"],
    "packed": [head("401 Unauthorized", "application/json", Content_Encoding="gzip"), gzip.compress(b'"no"')],
    "too long": [head("401 Unauthorized", "text/plain"), *[b"x" * 65536] * 2, STALL],
    "never at its end": [head("401 Unauthorized", "text/plain"), b"wait", STALL],
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_status_counts_whatever_becomes_of_its_body(make, server, name):
    lab = make(KEY, max_retries=3, first_token_seconds=2)
    lab.replies(BODIES[name])
    assert str(await lab.fails("hi", BackendRejected)) == "the model's provider refused (401)"
    assert len(server.requests) == 1
    if STALL in BODIES[name]:
        assert await trio.to_thread.run_sync(server.gone.get, True, 60) == "hi", "its connection is closed"


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("application/json; charset=utf-8", b'{"error": "caf\xe9"}', '401: {"error": "caf\ufffd"}'),
        ("text/plain; charset=nobody-knows", b"no", "401: no"),
        ("application/json", b'\xef\xbb\xbf{"error": "no"}', "401: no"),
    ],
)
async def test_a_status_counts_however_its_body_is_written(make, kind, body, said):
    lab = make()
    lab.replies([head("401 Unauthorized", kind), body])
    assert f"({said})" in str(await lab.fails("hi", BackendRejected))


async def test_of_a_long_refusal_little_is_read(make):
    class Long(list):
        sent = 0

        def __iter__(self):
            yield self[0]
            for _ in range(300):
                self.sent += 1
                yield b"x" * (1 << 20)

    lab = make()
    steps = Long([head("400 Bad Request", "application/json")])
    lab.replies(steps)
    assert str(await lab.fails("hi", BackendRejected)) == "the model's provider refused (400)"
    assert steps.sent < 100, "no more than the sockets hold"


async def test_a_provider_that_repeats_the_key_is_not_quoted(make, caplog):
    caplog.set_level(logging.DEBUG)
    lab = make(KEY)
    lab.replies(fault("401 Unauthorized", f"Incorrect API key provided: {KEY}."))
    assert "provided: ***." in str(await lab.fails("hi", BackendRejected))
    lab.replies([head(), event({"error": {"message": f"bad {KEY}"}})])
    lab.server.replies["ho"] = [[head(), event({"error": {"message": f"bad {KEY}"}})]]
    assert "bad ***" in str(await lab.fails("ho", BackendUnavailable))
    assert [r.getMessage() for r in caplog.records if r.name == "gateway_trio.openai"] == ["model failed"] * 2
    assert not any(KEY in json.dumps(vars(record), default=repr) for record in caplog.records)


@pytest.mark.parametrize(
    "first",
    [
        fault("500 Internal Server Error", "x"), fault("502 Bad Gateway", "x"), fault("503 Service Unavailable", "x"),
        fault("408 Request Timeout", "x"), fault("409 Conflict", "x"), fault("429 Too Many Requests", "x"),
        [head()], [RESET], [head(), event("{not json")], [head(kind="text/html"), b"<html>"],
    ],
)  # fmt: skip
async def test_what_can_pass_is_tried_again_before_the_first_token(make, server, first):
    lab = make(max_retries=1)
    lab.replies(first, stream("ok"))
    await lab.run("hi")
    assert (lab.text, len(server.requests)) == ("ok", 2)


@pytest.mark.parametrize("said", [{"content": "a"}, {"reasoning_content": "a"}])
async def test_nothing_is_tried_again_behind_the_first_token(make, server, said):
    lab = make(max_retries=3)
    lab.replies([head(), delta(**said), RESET], stream("ok"))
    await lab.fails("hi", BackendUnavailable)
    assert len(server.requests) == 1


async def test_there_are_as_many_tries_as_configured(make, server):
    lab = make(max_retries=2)
    lab.replies(fault("503 Service Unavailable", "overloaded"))
    assert str(await lab.fails("hi", BackendUnavailable)) == "the model is not available (503: overloaded)"
    assert len(server.requests) == 3


async def test_a_provider_is_not_asked_again_before_the_time_that_it_named(make, server):
    lab = make(max_retries=1)
    lab.replies(fault("429 Too Many Requests", "slow down", Retry_After="1"), stream("ok"))
    await lab.run("hi")
    (gap,) = (b["at"] - a["at"] for a, b in pairwise(server.requests))
    assert gap >= 1
    assert lab.text == "ok"


async def test_a_time_that_is_too_long_is_told_and_not_waited_for(make, server):
    lab = make(max_retries=5, first_token_seconds=10)
    lab.replies(fault("429 Too Many Requests", "slow down", Retry_After="20"))
    caught = await lab.fails("hi", BackendUnavailable)
    assert caught.retry_after_seconds == 20
    assert str(caught) == "the model is not available (429: slow down); it asks to wait 20 s"
    assert len(server.requests) == 1


async def test_a_drain_ends_the_waiting_for_another_try(make, server):
    lab = make(max_retries=5)
    lab.replies(fault("429 Too Many Requests", "slow down", Retry_After="60"))
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def drain():
            await trio.to_thread.run_sync(server.wait_for_request)
            lab.draining.set()

        await lab.fails("hi", BackendUnavailable)
    assert len(server.requests) == 1


async def test_nobody_there_is_said_with_the_reason(make, server):
    lab = make()
    server.stop()
    assert str(await lab.fails("hi", BackendUnavailable)) == "the model cannot be reached: connection refused"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2), ("0.5", 0.5), ("-3", 0), ("1e99", 86_400), (formatdate(1030, usegmt=True), 30),
        (formatdate(900, usegmt=True), 0), ("", None), ("soon", None), ("nan", None), ("Mon, 99 Foo 1", None),
    ],
)  # fmt: skip
def test_a_time_to_wait_is_seconds_or_a_date(value, seconds):
    assert retry_after({"retry-after": value}, 1000.0) == seconds


# --- the probe --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized", "404 Not Found"])
async def test_a_probe_is_content_with_any_answer_of_the_endpoint(make, server, status):
    server.models = [head(status, "application/json"), b"{}"]
    await make().agent.probe()
    assert server.probes[0]["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "reply", [fault("503 Service Unavailable", "x"), fault("429 Too Many", "x"), [head(kind="text/html")], [RESET]]
)
async def test_a_probe_says_that_the_endpoint_fails(make, server, reply):
    server.models = reply
    with pytest.raises(BackendUnavailable):
        await make().agent.probe()


async def test_a_probe_reads_no_more_of_a_refusal_than_a_turn(make, server):
    server.models = [head("503 Service Unavailable", "text/plain"), *[b"x" * 65536] * 2, STALL]
    with pytest.raises(BackendUnavailable, match=r"\(503\)"):
        await make().agent.probe()
    assert await trio.to_thread.run_sync(server.gone.get, True, 60) == ""


async def test_a_probe_says_that_nobody_is_there(make, server):
    server.stop()
    with pytest.raises(BackendUnavailable):
        await make().agent.probe()


# --- made of the config -----------------------------------------------------------------------------


def test_a_key_that_is_not_set_is_said_where_a_program_builds_the_config():
    config = OpenAIAgentConfig(base_url="http://localhost/v1", model="m", api_key_env="MODEL_KEY")
    with pytest.raises(AgentUnusable, match="MODEL_KEY is not set"):
        OpenAIAgent.from_config(config, {})
