"""The plain answers, read by an HTTP client's codec."""

import json

import h11
import pytest

from gateway_trio.core.phases import Phase, Reason
from gateway_trio.http import Answer, livez, readyz, refuse, to_bytes


def status(phase="open", *reasons):
    return {"phase": phase, "reasons": sorted(reasons), "turns": 1, "execs": 0}


def read(sent, method="GET"):
    """Return status code, headers and body as a client reads them, to the end of the connection."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(sent)
    client.receive_data(b"")
    head, body = client.next_event(), b""
    while isinstance(event := client.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert isinstance(client.next_event(), h11.ConnectionClosed)
    return head.status_code, {k.decode(): v.decode() for k, v in head.headers}, body


@pytest.mark.parametrize("phase", [phase.value for phase in Phase])
@pytest.mark.parametrize("reasons", [(), ("backend",), ("operator",), ("restart", "shutdown")])
def test_livez_is_always_200_and_says_what_goes_on(phase, reasons):
    code, headers, body = read(to_bytes(livez(status(phase, *reasons))))
    assert code == 200
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == status(phase, *reasons)


@pytest.mark.parametrize(
    ("phase", "reasons", "code"),
    [
        ("starting", (), 503),
        ("open", (), 200),
        ("draining", ("backend",), 200),
        ("draining", ("operator",), 503),
        ("draining", ("restart",), 503),
        ("draining", ("shutdown",), 503),
        ("draining", ("backend", "operator"), 503),
        ("cancelling", ("shutdown",), 503),
        ("finishing", ("restart",), 503),
        ("closing", ("shutdown",), 503),
        ("closed", (), 503),
    ],
)
def test_readyz_is_503_for_those_who_leave_but_not_for_a_failing_backend(phase, reasons, code):
    found, headers, body = read(to_bytes(readyz(status(phase, *reasons))))
    assert found == code
    assert json.loads(body) == status(phase, *reasons)
    assert headers["content-type"] == "application/json"


def test_every_reason_was_decided():
    leaving = {reason.value for reason in Reason if readyz(status("draining", reason.value)).status == 503}
    assert leaving == {"operator", "restart", "shutdown"}


@pytest.mark.parametrize("code", [400, 403, 404, 405, 426, 431, 503])
def test_a_refusal_is_a_whole_answer_that_says_why(code):
    found, headers, body = read(to_bytes(refuse(code, "because", ("Retry-After", "2"), ("Allow", "GET, HEAD"))))
    assert (found, body) == (code, b"because\n")
    assert (headers["retry-after"], headers["allow"]) == ("2", "GET, HEAD")
    assert headers["connection"] == "close"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-type"].startswith("text/plain")
    assert headers["content-length"] == "8"


@pytest.mark.parametrize("why", ["é", "\ud800", "<script>", "a\nb", "\x00"])
def test_a_reason_may_quote_what_a_stranger_sent(why):
    answer = refuse(400, why)
    assert answer.body.isascii()
    assert read(to_bytes(answer))[2] == answer.body


def test_head_has_the_headers_and_no_body():
    whole, head = to_bytes(livez(status())), to_bytes(livez(status()), head_only=True)
    assert whole.startswith(head)
    code, headers, body = read(head, "HEAD")
    assert (code, body) == (200, b"")
    assert int(headers["content-length"]) == len(whole) - len(head)


def test_an_answer_has_its_body_as_it_is():
    assert read(to_bytes(Answer(200, b"\x00\xff", "application/octet-stream")))[2] == b"\x00\xff"
