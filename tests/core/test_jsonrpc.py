"""JSON-RPC: whatever a client sends (case 56) becomes a message or the error to answer, and every answer is JSON."""

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway_trio.core import jsonrpc
from gateway_trio.core.jsonrpc import CLOSES, FAULTS, Notification, Problem, Request, Response, parse, problem


def strictly(text):
    """Read what RFC 8259 calls JSON, and nothing else."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    value = json.loads(text, parse_constant=refuse)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def answer_to(text):
    """Parse, and answer as the gateway would: what is answered must be a frame, whatever came."""
    found = parse(text)
    match found:
        case (id_, Problem() as fault):
            frame = jsonrpc.error(id_, fault)
        case Request(id_, method, params):
            frame = jsonrpc.result(id_, {"method": method, "params": params})
        case Notification(method, params):
            frame = jsonrpc.notification(method, params)
        case Response(id_, value, error):
            frame = jsonrpc.result(id_, [value, error])
    sent = jsonrpc.encode(frame)
    assert sent.isascii()
    assert "\n" not in sent
    strictly(sent)
    return found


_scalar = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_json = st.recursive(
    _scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
_frame = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "1.0", 2.0, None]),
        "id": _json,
        "method": _json,
        "params": _json,
        "result": _json,
        "error": _json,
    },
)


@given(st.text())
def test_any_text_is_answered_and_nothing_is_raised(text):
    answer_to(text)


@given(_frame | _json)
def test_any_json_is_answered_and_nothing_is_raised(value):
    answer_to(json.dumps(value))


@given(st.text(alphabet='[]{}",:0123456789.eE+-\\undtrfals \ud83d'))
def test_anything_that_looks_like_json_is_answered(text):
    answer_to(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "parse"),
        ('{"a":' * 100_000, "parse"),
        ("", "parse"),
        ("{", "parse"),
        ("{} {}", "parse"),
        ("NaN", "parse"),
        ('{"jsonrpc":"2.0","id":NaN,"method":"m"}', "parse"),
        ('{"jsonrpc":"2.0","id":-Infinity,"method":"m"}', "parse"),
        ('{"jsonrpc":"2.0","id":1e999,"method":"m"}', "parse"),
        ('{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":-1e999}}', "parse"),
        ('{"jsonrpc":"2.0","id":' + "1" * 5000 + ',"method":"m"}', "parse"),
        ('{"jsonrpc":"2.0","id":1,"method":"\\ud800"}', "parse"),
        ('{"jsonrpc":"2.0","id":"\\udc00\\ud800","method":"m"}', "parse"),
        ('{"jsonrpc":"2.0","id":1,"method":"m","params":{"\\ud800":1}}', "parse"),
        ('[{"jsonrpc":"2.0","id":1,"method":"m"}]', "invalid_request"),
        ("[]", "invalid_request"),
        ("7", "invalid_request"),
        ('"x"', "invalid_request"),
        ("null", "invalid_request"),
        ("{}", "invalid_request"),
        ('{"jsonrpc":"1.0","id":1,"method":"m"}', "invalid_request"),
        ('{"jsonrpc":2.0,"id":1,"method":"m"}', "invalid_request"),
        ('{"jsonrpc":"2.0","id":true,"method":"m"}', "invalid_request"),
        ('{"jsonrpc":"2.0","id":{},"method":"m"}', "invalid_request"),
        ('{"jsonrpc":"2.0","id":[1],"method":"m"}', "invalid_request"),
        ('{"jsonrpc":"2.0","id":1,"method":7}', "invalid_request"),
        ('{"jsonrpc":"2.0","id":1,"method":null}', "invalid_request"),
        ('{"jsonrpc":"2.0","id":1,"method":"m","params":"x"}', "invalid_request"),
        ('{"jsonrpc":"2.0","id":1}', "invalid_request"),
        ('{"jsonrpc":"2.0","result":1}', "invalid_request"),
    ],
)
def test_what_is_no_message_has_an_error(text, reason):
    _, fault = answer_to(text)
    assert fault.reason == reason
    assert fault.code == {"parse": -32700, "invalid_request": -32600}[reason]
    assert fault.message


def nested(depth):
    """A request that is nested so deep, itself included."""
    return '{"jsonrpc":"2.0","id":1,"method":"m","params":' + "[" * (depth - 1) + "]" * (depth - 1) + "}"


@pytest.mark.parametrize("depth", [jsonrpc.DEPTH + 1, 500, 900, 990])
def test_what_is_nested_too_deep_to_be_written_again_is_refused(depth):
    """From deeper in the stack than the one that reads it."""
    _, fault = answer_to(nested(depth))
    assert (fault.reason, fault.message) == ("parse", "this JSON is nested too deep")


@pytest.mark.parametrize("most", [1, 3, jsonrpc.DEPTH])
def test_a_depth_counts_the_outermost_too(most):
    jsonrpc.check_depth(json.loads("[" * most + "1" + "]" * most), most)
    with pytest.raises(RecursionError, match=f"deeper than {most}"):
        jsonrpc.check_depth(json.loads('{"a":' * most + "[]" + "}" * most), most)


def test_what_is_nested_less_deep_or_only_wide_is_read():
    assert isinstance(answer_to(nested(jsonrpc.DEPTH)), Request)
    wide = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "m", "params": {"x": [{}, []] * 500}})
    assert isinstance(answer_to(wide), Request)


def test_the_error_has_the_id_of_what_it_answers_where_there_is_one():
    assert parse('{"jsonrpc":"2.0","id":7,"method":1}')[0] == 7
    assert parse('{"jsonrpc":"1","id":"a","method":"m"}')[0] == "a"
    assert parse('{"jsonrpc":"2.0","id":[7],"method":"m"}')[0] is None
    assert parse("[1]")[0] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"jsonrpc":"2.0","id":1,"method":"m"}', Request(1, "m", None)),
        ('{"jsonrpc":"2.0","id":null,"method":"m"}', Request(None, "m", None)),
        ('{"jsonrpc":"2.0","id":1.5,"method":"m","params":[1]}', Request(1.5, "m", [1])),
        ('{"jsonrpc":"2.0","method":"m","params":{"a":1}}', Notification("m", {"a": 1})),
        ('{"jsonrpc":"2.0","id":1,"result":null}', Response(1, None, None)),
        ('{"jsonrpc":"2.0","id":1,"error":{"code":1}}', Response(1, None, {"code": 1})),
        ('{"jsonrpc":"2.0","id":1,"id":2,"method":"a","method":"b"}', Request(2, "b", None)),
        ('{"jsonrpc":"2.0","id":"\\ud83d\\ude00","method":"m"}', Request("😀", "m", None)),
        (' {"jsonrpc":"2.0","id":1,"method":"m","more":{}}\n', Request(1, "m", None)),
    ],
)
def test_what_is_a_message_is_read(text, message):
    assert answer_to(text) == message


@pytest.mark.parametrize(
    ("longest", "too_long"),
    [
        ('"' + "x" * 256 + '"', '"' + "x" * 257 + '"'),
        ('"' + "\U0001f600" * 256 + '"', '"' + "\U0001f600" * 257 + '"'),
        ("9" * 256, "9" * 257),
        ("-" + "9" * 255, "-" + "9" * 256),
        ("1" + "0" * 250, '"' + "x" * 1_000_000 + '"'),
    ],
)
def test_an_id_is_bounded_as_every_answer_repeats_it(longest, too_long):
    for member in ('"method":"m"', '"method":7', '"result":{}'):
        found = parse(f'{{"jsonrpc":"2.0","id":{longest},{member}}}')
        assert (found[0] if isinstance(found, tuple) else found.id) == json.loads(longest)
        assert len(jsonrpc.encode(jsonrpc.result(json.loads(longest), {}))) < 4096
        id_, fault = answer_to(f'{{"jsonrpc":"2.0","id":{too_long},{member}}}')
        assert (id_, fault.reason, fault.message) == (None, "invalid_request", "id is at most 256 characters long")


_ids = st.none() | st.integers(-(10**20), 10**20) | st.text() | st.floats(allow_nan=False, allow_infinity=False)
_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
_params = st.none() | st.lists(_plain, max_size=3) | st.dictionaries(st.text(max_size=4), _plain, max_size=3)


@given(_ids, st.text(), _params)
@example("\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "\u2028", {"é": "\x00"})
def test_what_we_write_is_what_is_read(id_, method, params):
    assert parse(jsonrpc.encode(jsonrpc.request(id_, method, params))) == Request(id_, method, params)
    assert parse(jsonrpc.encode(jsonrpc.notification(method, params))) == Notification(method, params)
    assert parse(jsonrpc.encode(jsonrpc.result(id_, params))) == Response(id_, params, None)


@given(_ids, st.sampled_from(sorted(FAULTS)), st.none() | st.integers(0, 10**6), st.none() | st.booleans())
def test_an_error_says_reason_and_what_to_do(id_, reason, after, admitted):
    fault = problem(reason, "a sentence", retry_after_ms=after, admitted=admitted, extra={"reasons": ["x"]})
    read = parse(jsonrpc.encode(jsonrpc.error(id_, fault)))
    assert (read.id, read.result) == (id_, None)
    code, retryable = FAULTS[reason]
    assert (read.error["code"], read.error["message"]) == (code, "a sentence")
    data = {"reason": reason, "retryable": retryable, "reasons": ["x"]}
    if after is not None:
        data["retryAfterMs"] = after
    if admitted is not None:
        data["admitted"] = admitted
    assert read.error["data"] == data


def test_a_problem_may_say_otherwise_and_must_have_a_reason_of_the_table():
    assert problem("failed", "x", retryable=True).retryable
    with pytest.raises(KeyError):
        problem("because", "x")


def test_the_codes_are_those_of_the_design():
    ours = {
        "draining": -32010,
        "held": -32010,
        "busy": -32011,
        "conflict": -32012,
        "forbidden": -32013,
        "store_unavailable": -32014,
        "rate_limited": -32015,
        "backend_unavailable": -32016,
        "unknown_session": -32002,
        "not_initialized": -32600,
        "auth_required": -32000,
        "interrupted": -32800,
        "failed": -32603,
        "usage": -32602,
    }
    assert {reason: FAULTS[reason][0] for reason in ours} == ours
    assert FAULTS["held"][1] is False, "it runs after the restart: sending it again would run it twice"


def test_close_codes_say_whether_to_come_back():
    assert {(close.code, close.come_back) for close in CLOSES.values()} == {
        (1012, True),
        (1008, False),
        (1009, False),
        (1011, True),
        (4101, True),
        (4102, True),
        (4501, False),
    }
    assert all(len(close.reason.encode()) <= 123 for close in CLOSES.values()), "RFC 6455 section 5.5"


def test_numbers_that_are_read_are_finite():
    assert parse('{"jsonrpc":"2.0","id":1e308,"method":"m"}').id == 1e308
    assert not math.isinf(parse('{"jsonrpc":"2.0","id":1.7976931348623157e308,"method":"m"}').id)


@pytest.mark.parametrize("code", [None, 1000, 1001, 1006, 1011, 1012, 4101, 4102, 4999])
def test_after_most_codes_a_client_comes_back(code):
    assert jsonrpc.comes_back(code)


@pytest.mark.parametrize("code", [1008, 1009, 4501])
def test_after_some_it_does_not(code):
    assert not jsonrpc.comes_back(code)
