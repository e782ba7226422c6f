import json
from itertools import groupby, pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_trio.core import chat_stream
from gateway_trio.core.chat_stream import (
    INTERRUPTED,
    MOST_EVENT_BYTES,
    Answer,
    EventStream,
    Part,
    StreamFault,
    messages,
)
from gateway_trio.core.text import clean


def events(*chunks):
    stream = EventStream()
    return [data for chunk in chunks for data in stream.feed(chunk)] + list(stream.end())


# --- events -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"data: a\n\ndata: b\n\n", ["a", "b"]),
        (b"data:a\n\ndata:  b\n\n", ["a", " b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
        (b"data: a\r\rdata: b\r\r", ["a", "b"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data: a\ndata\n\n", ["a\n"]),
        (b": a comment\n\n: another\nevent: x\nid: 3\nretry: 5\ndata: a\n\n", ["a"]),
        (b"\n\n\n", []),
        (b"", []),
        (b"data: no empty line", ["no empty line"]),
        (b"data: no empty line\r", ["no empty line"]),
        ("data: ä\u2028\x85ö\n\n".encode(), ["ä\u2028\x85ö"]),  # line ends for Python, not for events
        (b"data: \xff\n\n", ["\ufffd"]),
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\ndata: \xef\xbb\xbfc\n\n", ["a", "\ufeffc"]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
        (b"\xef\xbb\xbfdata: no line end", ["no line end"]),
        (b"\xef\xbb", []),
    ],
)
def test_events_are_taken_apart(text, found):
    assert events(text) == found


def test_an_event_comes_with_its_empty_line_and_not_at_the_end():
    stream = EventStream()
    assert list(stream.feed(b"data: a\n")) == []
    assert list(stream.feed(b"\n")) == ["a"]
    assert list(stream.feed(b"data: b\r\n\r")) == ["b"], "also where half of the line's end has come"
    assert list(stream.feed(b"")) == []
    assert list(stream.feed(b"\ndata: c\n\n")) == ["c"]


@given(
    st.lists(st.text("ä:a \u2028", max_size=5), max_size=5),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.data(),
)
def test_it_does_not_matter_where_the_bytes_are_cut(texts, end, mark, data):
    whole = mark + b"".join(b"data: " + text.encode() + end + end for text in texts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=8)))
    edges = [0, *cuts, len(whole)]
    assert events(*(whole[a:b] for a, b in pairwise(edges))) == texts


@pytest.mark.parametrize("piece", [b"x", b"data: x\n"])
def test_an_event_that_does_not_end_is_bounded(piece):
    stream = EventStream()
    chunk = piece * (65536 // len(piece))
    with pytest.raises(StreamFault, match="more than"):
        for _ in range(4 * MOST_EVENT_BYTES // len(chunk) + 4):
            list(stream.feed(chunk))


def test_a_long_line_is_not_looked_at_again_with_each_chunk(monkeypatch):
    looked_at = 0

    class Counted:
        def split(self, chunk):
            nonlocal looked_at
            looked_at += len(chunk)
            return real.split(chunk)

    real = chat_stream._LINE_END
    monkeypatch.setattr(chat_stream, "_LINE_END", Counted())
    assert events(b"data: ", *[b"x" * 10] * 1000, b"\n\n") == ["x" * 10_000]
    assert looked_at == 10_008


# --- answers ----------------------------------------------------------------------------------------


def chunk(finish=None, **delta):
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def take(*datas):
    answer = Answer()
    return [part for data in datas for part in answer.take(data)], answer


def test_an_answer_is_put_together():
    parts, answer = take(
        chunk(role="assistant", content=""),
        chunk(content="hel"),
        chunk(content="lo"),
        chunk("stop"),
        json.dumps({"choices": [], "usage": {"total_tokens": 9}}),
        "[DONE]",
    )
    assert parts == [Part("hel"), Part("lo")]
    assert (answer.finish, answer.used, answer.done, answer.said) == ("stop", 9, True, True)
    answer.end()


@pytest.mark.parametrize(
    ("delta", "parts"),
    [
        ({"reasoning_content": "hm"}, [Part("hm", thought=True)]),
        ({"reasoning": "hm"}, [Part("hm", thought=True)]),
        ({"reasoning": "hm", "reasoning_content": "hm"}, [Part("hm", thought=True)]),
        ({"content": "a", "reasoning": None}, [Part("a")]),
        ({"refusal": "no"}, [Part("no")]),
        ({"content": None, "tool_calls": [{}]}, []),
    ],
)
def test_what_a_delta_can_say(delta, parts):
    assert take(chunk(**delta))[0] == parts


@pytest.mark.parametrize(
    ("deltas", "parts"),
    [
        ([{"content": "a\ud83d"}, {"content": "\ude00b"}], [Part("a"), Part("😀b")]),
        ([{"content": "\ud83d"}, {"content": ""}, {"content": "\ude00"}], [Part("😀")]),
        ([{"reasoning": "\ud83d"}, {"reasoning": "\ude00"}], [Part("😀", thought=True)]),
        ([{"content": "\ud83d"}, {"content": "\ud83d"}, {"content": "\ude00"}], [Part("\ufffd"), Part("😀")]),
        ([{"content": "\ud83d"}, {"content": "b"}], [Part("\ufffdb")]),
        ([{"reasoning": "\ud83d"}, {"content": "\ude00"}], [Part("\ufffd", thought=True), Part("\ufffd")]),
        ([{"content": "\ud83d", "reasoning": "a"}], [Part("\ufffd"), Part("a", thought=True)]),
        ([{"content": "a\ud83d"}], [Part("a"), Part("\ufffd")]),
        ([{"content": "\ude00"}], [Part("\ufffd")]),
    ],
)
def test_a_character_that_comes_in_two_halves_is_joined_and_a_lone_half_replaced_where_it_stands(deltas, parts):
    found, answer = take(*(chunk(**delta) for delta in deltas), chunk("stop"), "[DONE]")
    answer.end()
    assert found + answer.rest() == parts
    assert answer.rest() == []


def test_half_a_character_is_no_part_of_an_answer():
    parts, answer = take(chunk(content="\ud83d"))
    assert (parts, answer.said) == ([], False)


@given(
    st.lists(st.tuples(st.text("a\ud83d\ude00", max_size=3), st.booleans())),
)
def test_nothing_is_lost_or_comes_in_another_order(pieces):
    said = [(text, thought) for text, thought in pieces if text]
    parts, answer = take(*(chunk(**{"reasoning" if thought else "content": text}) for text, thought in said))
    parts += answer.rest()
    assert all(part.text for part in parts)

    def runs(items):
        return [
            (thought, clean("".join(text for text, _ in group)))
            for thought, group in groupby(items, key=lambda item: item[1])
        ]

    assert runs([(part.text, part.thought) for part in parts]) == runs(said)


@pytest.mark.parametrize(
    "data", ["{}", '{"choices": null}', '{"choices": [{"delta": null}]}', '{"choices": [], "usage": null}']
)
def test_a_chunk_may_say_nothing(data):
    parts, answer = take(data)
    assert (parts, answer.said) == ([], False)


@pytest.mark.parametrize("data", ["{not json", "", "[" * 100_000, '{"a": ', "9" * 5000])
def test_what_is_no_json_is_said(data):
    with pytest.raises(StreamFault, match="no JSON"):
        take(data)


@pytest.mark.parametrize(
    "data",
    [
        "5", "[]", '"x"', "null", '{"choices": 5}', '{"choices": [5]}', '{"choices": [{"delta": 5}]}',
        chunk(content=5), chunk(content=["x"]),
    ],
)  # fmt: skip
def test_what_is_no_chunk_is_said(data):
    with pytest.raises(StreamFault, match="no chunk"):
        take(data)


@pytest.mark.parametrize(
    ("usage", "used"),
    [
        ('{"total_tokens": 0}', 0), ('{"total_tokens": 12.0}', 12), ('{"total_tokens": 9007199254740992}', 2**53),
        ('{"total_tokens": 9007199254740993}', None), ('{"total_tokens": 1e999}', None), ('{"total_tokens": NaN}', None),
        ('{"total_tokens": -5}', None), ('{"total_tokens": 1.5}', None), ('{"total_tokens": "x"}', None),
        (f'{{"total_tokens": {"9" * 4000}}}', None), ('{"total_tokens": [1]}', None), ('{"total_tokens": true}', None), ('{"x": 1}', None), ("5", None),
        ('"x"', None), ("[1]", None),
    ],
)  # fmt: skip
def test_what_is_no_number_of_tokens_is_left_out_and_the_answer_stands(usage, used):
    parts, answer = take(f'{{"choices": [{{"delta": {{"content": "a"}}}}], "usage": {usage}}}')
    assert (parts, answer.used) == ([Part("a")], used)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ({"message": "overloaded"}, "broke off: overloaded"),
        ("oom", "broke off: oom"),
        ({"code": 5}, "without a message"),
    ],
)
def test_an_error_object_ends_it(error, said):
    with pytest.raises(StreamFault, match=said):
        take(chunk(content="a"), json.dumps({"error": error}))


@pytest.mark.parametrize("datas", [(), (chunk(content="a"),), ("[DONE]",), (chunk(content=""), "[DONE]")])
def test_an_answer_that_has_not_ended_is_none(datas):
    _, answer = take(*datas)
    with pytest.raises(StreamFault, match="ended"):
        answer.end()


@pytest.mark.parametrize(
    "datas", [(chunk(content="a"), "[DONE]"), (chunk(content="a"), chunk("stop")), (chunk("stop"),)]
)
def test_done_or_a_reason_ends_it(datas):
    take(*datas)[1].end()


def test_the_key_is_in_no_fault():
    with pytest.raises(StreamFault, match=r"bad \*\*\*$"):
        Answer("sk-12345678").take('{"error": "bad sk-12345678"}')


# --- what is sent -----------------------------------------------------------------------------------


def item(role, text, *, interrupted=False):
    return SimpleNamespace(role=role, text=text, interrupted=interrupted)


def sent(history, *, system="", text="now", most=100):
    return [(m["role"], m["content"]) for m in messages(system, history, text, most=most)]


TALK = [item("user", "a"), item("assistant", "A"), item("user", "b"), item("assistant", "B")]


def test_history_and_prompt_are_sent_in_order():
    assert sent(TALK) == [("user", "a"), ("assistant", "A"), ("user", "b"), ("assistant", "B"), ("user", "now")]
    assert sent([], system="be brief") == [("system", "be brief"), ("user", "now")]


@pytest.mark.parametrize(
    ("most", "texts"),
    [(0, ["now"]), (1, ["now"]), (2, ["b", "B", "now"]), (3, ["b", "B", "now"]), (4, ["a", "A", "b", "B", "now"])],
)
def test_only_the_newest_are_sent_and_never_an_answer_first(most, texts):
    assert [text for _, text in sent(TALK, most=most)] == texts


def test_an_interrupted_answer_is_marked():
    history = [item("user", "a"), item("assistant", "half", interrupted=True)]
    assert sent(history)[1] == ("assistant", f"half\n\n{INTERRUPTED}")


@given(st.lists(st.sampled_from([*TALK, item("assistant", "half", interrupted=True)])), st.integers(0, 12))
def test_the_newest_are_those_of_all_however_many_stand_in_a_row(history, most):
    everything = sent(history, most=10**6)
    newest = everything[-most - 1 :] if everything[-1] == ("user", "now") else everything[-most:]
    if newest and newest[0][0] == "assistant":
        newest = newest[1:]
    if most:
        assert sent(history, most=most) == newest
    else:
        assert sent(history, most=most) == [("user", "now")]


class Counted(list):
    """A history that knows how many items were taken of it."""

    taken = 0

    def __getitem__(self, index):
        found = super().__getitem__(index)
        self.taken += len(found)
        return found


def test_a_long_history_is_not_read_from_its_start():
    history = Counted(TALK * 10_000)
    assert len(sent(history, most=6)) == 7
    assert history.taken <= 30


def test_prompts_without_an_answer_are_one_message():
    assert sent([item("user", "a"), item("user", "b")]) == [("user", "a\n\nb\n\nnow")]
