"""Cases 53 and 59: pings while being closed, and in mid-turn."""

import os
import threading

from raw import CLOSE, PING, PONG, TEXT, Raw, close, frame

from harness import Program, ours_of

SLOW = """
[agent]
type = "echo"
words_per_second = 2

[drain]
grace_seconds = 1
"""

PROMPT = " ".join(f"w{number}" for number in range(20))  # a turn of ten seconds


class Noise:
    """A client that sends, every 2 ms and in every state, until its socket is closed."""

    def __init__(self, port, what):
        self.raw = Raw(port, "/acp")
        self._what = what
        self._gone = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self):
        try:
            while not self._gone.wait(0.002):
                self.raw.send(self._what)
        except OSError:
            pass

    def code(self):
        code = self.raw.close_code()
        self._gone.set()
        self._thread.join(10)
        self.raw.hang_up()
        return code


def test_case_53_whoever_sends_while_being_closed_hears_1012_and_nobody_else_notices(tmp_path):
    request = b'{"jsonrpc":"2.0","id":1,"method":"_gateway-trio/status"}'
    with Program(tmp_path, SLOW) as program:
        noise = [
            Noise(program.port, what)
            for what in (
                frame(PING, b"x" * 125),
                frame(PING),
                frame(PONG, b"unasked"),
                frame(TEXT, request),
                frame(TEXT, b"{"),
                frame(TEXT, b"a", final=False) + frame(PING) + frame(0, b"b"),
            )
        ]
        with program.chat() as chat, program.acp() as client:
            session = client.new_session()
            client.ask_prompt(session, PROMPT)
            client.until(lambda f: "w1" in client.text())
            program.signal()
            client.until_state("interrupted")
            assert [one.code() for one in noise] == [1012] * len(noise)
            assert client.code == 1012
            assert chat.code == 1012
        assert program.wait() == 0
        assert "a connection failed" not in program.text
        assert "Traceback" not in program.text
        assert program.report["connections_told"] == len(noise) + 2


def test_case_53_one_that_pings_while_it_closes_itself(tmp_path):
    with Program(tmp_path) as program, program.chat() as chat:
        for _ in range(20):
            with Raw(program.port, "/acp") as raw:
                raw.send(frame(PING, b"1") + close(1000) + frame(PING, b"2") + frame(TEXT, b"{}") + close(1000))
                assert raw.close_code() in (1000, None)
        assert chat.ask("hello") == "hello"
        assert "a connection failed" not in program.text


def test_case_59_a_ping_in_ones_own_turn_is_answered_at_once(tmp_path):
    with Program(tmp_path, SLOW) as program:
        with program.acp() as client:
            session = client.new_session()
            client.ask_prompt(session, PROMPT)
            client.until(lambda f: "w1" in client.text())
            for _ in range(3):
                assert client.websocket.ping(os.urandom(16)).wait(5)
            client.websocket.ping().wait(5)
            # The turn is not over yet: the next that comes of it is more text.
            update = client.until(lambda f: False if f in client.frames[:-1] else "at" in ours_of(f))
            assert update["params"]["update"]["content"]["text"].strip().startswith("w")
        with Raw(program.port, "/chat?session=raw") as raw:
            raw.send(frame(TEXT, PROMPT.encode()))
            for payload in (b"", b"one", os.urandom(125)):
                raw.send(frame(PING, payload))
                assert raw.until(PONG) == payload
            # Between the parts of a message, and while a command is answered.
            raw.send(frame(TEXT, b"/sta", final=False) + frame(PING, b"between") + frame(0, b"tus"))
            assert raw.until(PONG) == b"between"
            assert b"a turn runs" in raw.until(TEXT)
            raw.send(close(1000))
            assert raw.frame()[0] == CLOSE
