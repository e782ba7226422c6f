"""`/metrics` of a real gateway: who gets it, in which phases, and how it is said."""

import contextlib
import hashlib
import socket

import pytest
from processes import wait_until
from raw import TEXT, Raw, close, frame

from harness import PATIENCE, Metrics, Program, ours_of

TOKEN = "a-token-for-the-scraper-0123456789"
AUTH = f"""
[[auth.tokens]]
name = "scraper"
role = "user"
sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"
"""

DRAIN = """
[agent]
words_per_second = 1

[drain]
grace_seconds = 1

[quick_commands.waits]
type = "exec"
command = "echo on; exec sleep 300"
timeout_seconds = 600
"""


def ask(port, host="127.0.0.1", to="127.0.0.1", method="GET", **headers):
    """Return status code, head and body of the answer."""
    lines = [f"{method} /metrics HTTP/1.1", f"Host: {host}", *(f"{k}: {v}" for k, v in headers.items())]
    with socket.create_connection((to, port), PATIENCE) as sock:
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while data := sock.recv(65536):
            answer += data
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]), head.lower(), body


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    config = '[server]\nport = 0\nhosts = ["gateway.example"]\n' + AUTH
    with Program(tmp_path_factory.mktemp("gateway"), config) as program:
        yield program


def test_it_is_prometheus_text(program):
    status, head, body = ask(program.port)
    assert status == 200
    assert "\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n" in head
    assert Metrics(body).one("phase") == "open"
    assert Metrics(body)("build_info", version="0.1.0") == 1
    assert Metrics(body).samples["process_open_fds", ()] > 0


def test_head_has_the_headers_and_no_body(program):
    status, head, body = ask(program.port, method="HEAD")
    assert (status, body) == (200, "")
    assert "content-type: text/plain; version=0.0.4" in head
    assert ask(program.port, method="POST")[0] == 405


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost:9999", "[::1]"])
def test_over_loopback_it_needs_no_token(program, host):
    assert ask(program.port, host)[0] == 200


def test_through_a_proxy_on_this_machine_it_needs_one(program):
    """What comes by another name than loopback's comes from elsewhere, whatever the socket says."""
    status, head, body = ask(program.port, "gateway.example")
    assert status == 401
    assert "www-authenticate: bearer" in head
    assert "gateway_trio_" not in body
    assert ask(program.port, "gateway.example", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(program.port, "gateway.example", Authorization="Bearer wrong")[0] == 401
    assert ask(program.port, Authorization="Bearer wrong")[0] == 401, "a wrong one is told so everywhere"


def own_address():
    """Return an address of this machine that is not loopback's; None if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.connect(("192.0.2.1", 9))  # sends nothing
        return sock.getsockname()[0]


def test_off_loopback_it_needs_a_token(tmp_path):
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback's")
    with Program(tmp_path, '[server]\nport = 0\nhost = "0.0.0.0"\n' + AUTH) as program:
        assert ask(program.port, address, to=address)[0] == 401
        assert ask(program.port, "localhost", to=address)[0] == 401, "the address counts, not only the name"
        assert ask(program.port, address, to=address, Authorization=f"Bearer {TOKEN}")[0] == 200
        assert ask(program.port)[0] == 200


def test_http_refusals_are_counted(tmp_path):
    with Program(tmp_path) as program:
        for path, code in (("/no", 404), ("/no/such", 404), ("/acp", 426)):
            assert program.get(path)[0] == code
        assert ask(program.port, "elsewhere.example")[0] == 403
        with Raw(program.port) as raw:
            raw.send(b"\xff\r\n\r\n")
            assert raw.status() == 400
        found = program.scrape().all("http_refusals_total")
        assert found == {"404": 2, "426": 1, "403": 1, "400": 1}


def test_connections_that_are_closed_are_counted(tmp_path):
    with Program(tmp_path, "[server]\nport = 0\nmax_message_bytes = 2000\n") as program:
        for data in (frame(TEXT, b"x" * 3000), frame(TEXT, "é".encode() * 1500), frame(3), close(1000)):
            with Raw(program.port, "/acp") as raw:
                raw.send(data)
                raw.close_code()
        with Raw(program.port, "/acp") as raw:
            raw.reset()
        wait_until(lambda: program.scrape()("connections") == 0)
        assert program.scrape().all("closes_total") == {"too_big": 2, "protocol": 1}, (
            "not those that clients closed"
        )


def test_before_in_and_up_to_the_end_of_a_drain(tmp_path):
    with Program(tmp_path, DRAIN) as program, program.acp() as client:
        before = program.scrape()
        assert before.one("phase") == "open"
        assert before("connections") == 1
        session = client.new_session()
        client.prompt(session, "/drain")
        operator = program.scrape()
        assert (operator.one("phase"), operator.all("drain_reason")) == ("draining", {"operator": 1})
        client.prompt(session, "/undrain")
        assert program.scrape().one("phase") == "open"

        client.ask_prompt(session, "word " * 500)
        client.until_state("running")
        client.ask_prompt(session, "/waits")
        client.until(lambda _: "on" in client.text())
        running = program.scrape()
        assert (running("turns_running"), running("execs_running"), running("sessions")) == (1, 1, 1)
        program.signal()
        client.until(lambda f: (f.get("params") or {}).get("phase") == "draining" and "shutdown" in str(f))
        assert program.scrape()("drain_reason", reason="shutdown") == 1
        client.until(lambda f: (f.get("params") or {}).get("phase") == "finishing")
        finishing = program.scrape()
        assert finishing.one("phase") == "finishing"
        assert finishing.all("turns_total") == {"interrupted": 1}
        assert (finishing("turns_running"), finishing("execs_running")) == (0, 1)
        assert finishing("phase_seconds_total", phase="draining") >= 1
        assert 0 < finishing("phase_remaining_seconds") <= 25
        assert finishing.all("drains_total") == {"operator": 1, "shutdown": 1}
        exec_id = ours_of(client.until(lambda f: "exec" in ours_of(f)))["exec"]["id"]
        client.call("_gateway-trio/kill", {"id": exec_id})
        assert client.code == 1012
        assert program.wait() == 0
