"""The examples of docs/protocol.md, each played against a real gateway: one that is wrong fails.

A fenced block in `json` or `text` has a name, `<!-- example: NAME -->` in the line above it, and a scenario of that
name here, which brings a gateway to where the example begins. Then what the example sends (`→`, in a chat `>`) is
sent, and what it shows (`←`, `<`) must come: the same members and values, but for those that are of that moment
(`VARY`), which must be of the same type, and the same wherever the example has the same.
"""

import contextlib
import json
import re
import signal
from pathlib import Path

import pytest

from harness import Program

DOCS = Path(__file__).parents[1] / "docs" / "protocol.md"
ASKING = Path(__file__).parent / "cases" / "programs" / "asking.py"
TOKEN = "a-token-of-the-docs-0123456789"
ANN = '[[auth.tokens]]\nname = "ann"\nrole = "admin"\nenv = "DOCS_TOKEN"\n'
ENV = {"DOCS_TOKEN": TOKEN}

#: What differs from one run to the next, by the name of the member.
VARY = {
    "sessionId", "turnId", "execId", "toolCallId", "requestId", "epoch", "seconds", "reconnectAfterMs", "remainingMs",
}  # fmt: skip
LEFT_OUT = "…"


# --- reading them -----------------------------------------------------------------------------------


def examples(text: str) -> dict[str, tuple[str, str]]:
    """Return language and body of each fenced block, by its name; one without a name is called by its line."""
    found = {}
    fence = re.compile(
        r"^(?:<!-- example: (?P<name>\S+) -->\n)?```(?P<language>\w*)\n(?P<body>.*?)^```$", re.M | re.S
    )
    for match in fence.finditer(text):
        name = match["name"] or f"line {text.count(chr(10), 0, match.start()) + 1}"
        assert name not in found, f"two examples are called {name}"
        found[name] = (match["language"], match["body"])
    return found


def pattern(text: str):
    """Read JSON in which `…` stands for something: a value, further members, further items."""
    text = re.sub(r"(?<=[{,])\s*…\s*(?=[,}])", f'"{LEFT_OUT}": 0', text)
    text = re.sub(r"(?<=[:\[,])\s*…\s*(?=[,}\]])", f'"{LEFT_OUT}"', text)
    return json.loads(text)


def frames(body: str) -> list[tuple[str, object]]:
    """Return the frames of an example: (`→` or `←`, pattern). `← … {…}` shows what is ours in an update alone."""
    found = []
    for text in re.split(r"^(?=[→←])", body, flags=re.M):
        if not text.strip():
            continue
        arrow, rest = text[0], text[1:].strip()
        if rest.startswith(LEFT_OUT):
            ours = pattern(rest.removeprefix(LEFT_OUT).strip())
            update = {"sessionUpdate": "session_info_update", "_meta": {"gateway-trio": ours}}
            found.append((arrow, {LEFT_OUT: 0, "params": {LEFT_OUT: 0, "update": update}}))
        else:
            found.append((arrow, pattern(rest)))
    return found


# --- comparing --------------------------------------------------------------------------------------


class Bound:
    """What the example's values are here."""

    def __init__(self, **known):
        self.known = known

    def fill(self, value, name=""):
        """Return what is to be sent: the example's frame with the values of here."""
        match value:
            case dict():
                return {key: self.fill(item, key) for key, item in value.items()}
            case list():
                return [self.fill(item) for item in value]
            case str() if value == LEFT_OUT:
                return self.known[name]
        return self.known.get(value, value) if name in VARY or (name == "id" and value in self.known) else value

    def compare(self, shown, came, where="frame"):
        """Assert that what came is what the example shows."""
        if shown == LEFT_OUT:
            return
        assert type(shown) is type(came) or {type(shown), type(came)} == {int, float}, f"{where}: {came!r}"
        match shown:
            case dict():
                missing, more = shown.keys() - came.keys() - {LEFT_OUT}, came.keys() - shown.keys()
                assert not missing, f"{where}: no gateway sends {missing}; it sent {came}"
                assert not more or LEFT_OUT in shown, f"{where}: the example lacks {more}"
                for key in shown.keys() - {LEFT_OUT}:
                    self._member(key, shown[key], came[key], f"{where}.{key}")
            case list():
                whole = not shown or shown[-1] != LEFT_OUT
                assert len(shown) == len(came) if whole else len(shown) - 1 <= len(came), f"{where}: {came}"
                for n, item in enumerate(shown if whole else shown[:-1]):
                    self.compare(item, came[n], f"{where}[{n}]")
            case _:
                assert shown == came, f"{where}: the example has {shown!r}, and a gateway sends {came!r}"

    def _member(self, name, shown, came, where):
        opaque = name in VARY or (name == "id" and isinstance(shown, str) and not re.fullmatch(r"p\d+", shown))
        if opaque and shown is not None:
            assert type(shown) is type(came), f"{where}: {came!r}"
            assert self.known.setdefault(shown, came) == came, (
                f"{where}: {shown} was {self.known[shown]}, not {came}"
            )
        else:
            self.compare(shown, came, where)


class Example:
    """One example, and what plays it."""

    def __init__(self, name):
        self.language, self.body = examples(DOCS.read_text(encoding="utf-8"))[name]

    def play(self, client, *, gaps=False, **known):
        """Send what it sends on `/acp`, and compare what comes; with `gaps` something else may come between.

        `known` are values of the example, and those that it leaves out by their name, with what they are here.
        """
        assert self.language == "json"
        bound = Bound(**known)
        for arrow, shown in frames(self.body):
            if arrow == "→":
                client.send(bound.fill(shown))
                continue
            came = client.take()
            while gaps and (came.get("method"), came.get("params", {}).get("phase")) != (
                shown.get("method"),
                shown.get("params", {}).get("phase"),
            ):
                came = client.take()
            bound.compare(shown, came)

    def play_chat(self, client):
        assert self.language == "text"
        for line in self.body.splitlines():
            if line.startswith("> "):
                client.send(line[2:])
            else:
                assert client.take() == line.removeprefix("< ")


# --- the scenarios ----------------------------------------------------------------------------------


@contextlib.contextmanager
def attached(program, **more):
    """A client with a new session, that has been told its commands, and so has nothing more to come."""
    with program.acp(ours=False, **more) as client:
        session = client.new_session()
        client.until(lambda f: f.get("method") == "session/update")
        yield client, session


def authenticate(example, tmp_path):
    with Program(tmp_path, ANN, env=ENV) as program, program.acp(ours=False) as client:
        example.play(client, token=TOKEN)


def turn(example, tmp_path):
    with Program(tmp_path) as program, attached(program) as (client, session):
        example.play(client, s1=session)


def exec_(example, tmp_path):
    hello = '[quick_commands.hi]\ntype = "exec"\ncommand = "echo hi; exit 3"\n'
    with Program(tmp_path, hello) as program, attached(program) as (client, session):
        prompt = {"sessionId": session, "prompt": [{"type": "text", "text": "/hi"}]}
        client.send({"jsonrpc": "2.0", "id": 6, "method": "session/prompt", "params": prompt})
        while "method" in (answer := client.take()):
            pass
        client.take = lambda: answer
        example.play(client)


def resume(example, tmp_path):
    with Program(tmp_path) as program, attached(program) as (first, session):
        for text in ("one", "two"):  # five events each
            first.prompt(session, text)
        with program.acp(ours=False) as other:
            last = other.call("session/resume", {"sessionId": session, "cwd": "/"})["_meta"]["gateway-trio"]
            assert last["last"] == 10
        with program.acp(ours=False) as client:
            example.play(client, **{"s1": session, "509b13af": last["epoch"]})


def notifications(example, tmp_path):
    slow = "[agent]\nwords_per_second = 10\n"
    with Program(tmp_path, slow) as program, program.acp() as client:
        session = client.new_session()
        client.ask_prompt(session, "a b c d e f g h i j")
        client.until_state("running")
        program.signal(signal.SIGTERM)
        example.play(client, gaps=True)


def permission(example, tmp_path):
    ann = {"additional_headers": {"Authorization": f"Bearer {TOKEN}"}}
    with Program(tmp_path, ANN, env=ENV, script=ASKING) as program, attached(program, **ann) as (client, session):
        client.ask_prompt(session, "delete x")
        for _ in range(3):  # queued, running, the tool call
            client.take()
        example.play(client, s1=session)


def permission_withdrawn(example, tmp_path):
    with Program(tmp_path, script=ASKING) as program, attached(program) as (client, session):
        client.ask_prompt(session, "delete x")
        client.until(lambda f: f.get("method") == "session/request_permission")
        client.ask_prompt(session, "/allow")
        example.play(client, gaps=True)


def permission_chat(example, tmp_path):
    ann = {"additional_headers": {"Authorization": f"Bearer {TOKEN}"}}
    with Program(tmp_path, ANN, env=ENV, script=ASKING) as program, program.chat(**ann) as client:
        example.play_chat(client)


SCENARIOS = {
    "authenticate": authenticate,
    "turn": turn,
    "exec": exec_,
    "resume": resume,
    "notifications": notifications,
    "permission": permission,
    "permission-withdrawn": permission_withdrawn,
    "permission-chat": permission_chat,
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_example_is_what_a_gateway_does(name, tmp_path):
    SCENARIOS[name](Example(name), tmp_path)


def test_every_example_is_played():
    text = DOCS.read_text(encoding="utf-8")
    assert set(examples(text)) == set(SCENARIOS)
    assert text.count("```") == 2 * len(SCENARIOS)


# --- that a wrong example fails ---------------------------------------------------------------------

CAME = {"id": 3, "result": {"stopReason": "end_turn", "n": 1, "list": [1, 2], "turn": {"id": "tabc"}}}


@pytest.mark.parametrize(
    "shown",
    [
        '{"id": 3, "result": …}',
        '{"id": 3, …}',
        '{…, "result": {"stopReason": "end_turn", …}}',
        '{"id": 3, "result": {"stopReason": "end_turn", "n": …, "list": [1, …], "turn": {"id": "t9"}}}',
        '{"id": 3, "result": {"stopReason": "…", "n": 1, "list": [1, 2], "turn": {…}}}',
    ],
)
def test_what_is_left_out_may_be_anything(shown):
    Bound().compare(pattern(shown), CAME)


@pytest.mark.parametrize(
    "shown",
    [
        '{"id": 4, …}',
        '{"id": "3", …}',
        '{"id": 3}',
        '{"id": 3, "error": {}, …}',
        '{"result": {"stopReason": "cancelled", …}, …}',
        '{"result": {"n": "1", …}, …}',
        '{"result": {"n": true, …}, …}',
        '{"result": {"list": [1], …}, …}',
        '{"result": {"list": [2, …], …}, …}',
        '{"result": {"turn": {"id": "t9", "key": null}, …}, …}',
    ],
)
def test_what_is_wrong_is_seen(shown):
    with pytest.raises(AssertionError):
        Bound().compare(pattern(shown), CAME)


def test_what_varies_is_the_same_wherever_the_example_has_the_same():
    bound = Bound(s1="s-real")
    bound.compare({"turnId": "t9"}, {"turnId": "tabc"})
    bound.compare({"turn": {"id": "t9"}}, {"turn": {"id": "tabc"}})
    for shown, came in (({"turnId": "t9"}, {"turnId": "tother"}), ({"sessionId": "s1"}, {"sessionId": "s-other"})):
        with pytest.raises(AssertionError):
            bound.compare(shown, came)
    assert bound.fill({"sessionId": "s1", "text": "s1"}) == {"sessionId": "s-real", "text": "s1"}
