"""Cases 51 and 52: a client that lost its socket gets what it missed, once and in order, or is told that it cannot."""

import contextlib
import signal

import pytest
from processes import wait_until
from restarts import ENDS, come_back, end, on_disk, rows, until_stored
from websockets.exceptions import ConnectionClosed

from harness import Program, ours_of

WORDS = " ".join(f"word{number}" for number in range(300))

CONFIG = """
[agent]
type = "echo"
words_per_second = 100

[quick_commands.lines]
type = "exec"
command = "for n in 1 2 3 4 5 6 7 8 9; do echo line $n; sleep 0.3; done"
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    with Program(tmp_path_factory.mktemp("gateway"), CONFIG) as program:
        yield program


def meta(**ours):
    return {"_meta": {"gateway-trio": ours}}


def told(result):
    return result["_meta"]["gateway-trio"]


def lose(client, how):
    """Lose the socket, and take what had come by then."""
    if how == "closed":
        client.websocket.close()
    elif how == "odd code":
        client.websocket.close(4999, "bye")
    else:
        client.websocket.socket.shutdown(2)
    with contextlib.suppress(ConnectionClosed):
        while True:
            client.take()


class Told:
    """What a client knows of a session: put together from the frames of all its connections, in their order."""

    def __init__(self, *frames):
        self.events: dict[int, object] = {}
        self.messages: dict[int, str] = {}
        self.last = 0
        for frame in frames:
            self._take(frame)

    def _take(self, frame):
        ours = ours_of(frame)
        seq = ours.get("seq")
        if seq is None:
            return
        update = frame["params"]["update"]
        if "at" not in ours or update["sessionUpdate"] == "user_message_chunk":
            assert seq not in self.events, f"twice: {frame}"
            self.events[seq] = update
        else:
            so_far = self.messages.get(seq, "")
            assert ours["at"] <= len(so_far), f"a hole: {frame} after {so_far[-50:]!r}"
            self.messages[seq] = so_far[: ours["at"]] + update["content"]["text"]
        self.last = max(self.last, seq)

    @property
    def states(self):
        changes = [ours_of({"params": {"update": update}}) for update in self.events.values()]
        return [change[work]["state"] for change in changes for work in ("turn", "exec") if work in change]


@pytest.mark.parametrize("when", ["while it runs", "when it is over"])
@pytest.mark.parametrize("how", ["closed", "broken", "odd code"])
def test_case_51_a_turn_goes_on_and_what_was_missed_arrives(program, how, when):
    with program.acp() as watcher:
        first = program.acp()
        made = first.call("session/new", {"cwd": "/", "mcpServers": []})
        session, epoch = made["sessionId"], told(made)["epoch"]
        watcher.call("session/resume", {"sessionId": session, "cwd": "/"})
        first.ask_prompt(session, WORDS, key="k")
        first.until(lambda f: "word20 " in first.text() + " ")
        lose(first, how)
        had = Told(*first.frames)
        assert had.states == ["queued", "running"]
        if when == "when it is over":
            watcher.until_state("completed")
        with program.acp() as second:
            result = second.call(
                "session/resume", {"sessionId": session, "cwd": "/", **meta(after=had.last, epoch=epoch)}
            )
            assert told(result)["recovered"] is True
            assert told(result)["epoch"] == epoch
            ended = second.until_state("completed")
            assert ours_of(ended)["turn"]["key"] == "k"
            # The client's own prompt has the number that `queued` told, and is not sent again.
            both = Told(*first.frames, *second.frames)
            assert both.states == ["queued", "running", "completed"]
            assert list(both.messages.values()) == [WORDS]
            assert sorted([*both.events, *both.messages]) == list(range(2, both.last + 1))
            numbers = [ours_of(f)["seq"] for f in second.frames if "seq" in ours_of(f)]
            assert numbers == sorted(numbers)
            # It may also ask what became of the prompt.
            assert second.prompt(session, WORDS, key="k")["stopReason"] == "end_turn"
        watcher.until_state("completed")
        assert watcher.text() == WORDS


def test_case_51_also_with_an_exec_at_once(program):
    first = program.acp()
    session = first.new_session()
    first.ask_prompt(session, WORDS)
    first.ask_prompt(session, "/lines")
    first.until(lambda f: "line 2" in first.text() and "word20 " in first.text())
    lose(first, "broken")
    with program.acp() as second:
        second.call("session/resume", {"sessionId": session, "cwd": "/", **meta(after=Told(*first.frames).last)})
        second.until(lambda f: Told(*first.frames, *second.frames).states.count("completed") == 2)
        both = Told(*first.frames, *second.frames)
        said = sorted(both.messages.values(), key=len)
        assert said == ["".join(f"line {number}\n" for number in range(1, 10)), WORDS]


def test_case_51_again_and_again(program):
    """Ten losses in one turn: whatever was had and whatever was not, it adds up."""
    client = program.acp()
    session = client.new_session()
    client.ask_prompt(session, WORDS)
    client.until(lambda f: client.text())
    frames = []
    for count in range(10):
        lose(client, ("broken", "closed")[count % 2])
        frames += client.frames
        client = program.acp()
        client.call("session/resume", {"sessionId": session, "cwd": "/", **meta(after=Told(*frames).last)})
        client.until(lambda f: "seq" in ours_of(f))
    with client:
        client.until_state("completed")
        whole = Told(*frames, *client.frames)
        assert list(whole.messages.values()) == [WORDS]
        assert whole.states == ["queued", "running", "completed"]


def test_case_51_after_the_queue_moved_on(program):
    """Three prompts wait when the socket drops: each is answered, in order, and each outcome arrives."""
    first = program.acp()
    session = first.new_session()
    prompts = [" ".join([f"p{number}"] * 50) for number in range(4)]
    for prompt in prompts:
        first.ask_prompt(session, prompt)
    first.until(lambda f: Told(*first.frames).states.count("queued") == 4)
    lose(first, "broken")
    with program.acp() as second:
        second.call("session/resume", {"sessionId": session, "cwd": "/", **meta(after=Told(*first.frames).last)})
        second.until(lambda f: Told(*first.frames, *second.frames).states.count("completed") == 4)
        whole = Told(*first.frames, *second.frames)
        assert [whole.messages[seq] for seq in sorted(whole.messages)] == prompts
        assert whole.states.count("cancelled") == 0


SMALL = """
[session]
keep_bytes = 4096

[agent]
type = "echo"
words_per_second = 100000
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    with Program(tmp_path_factory.mktemp("gateway"), SMALL) as program:
        yield program


def long_session(client):
    """Make a session whose first events are not kept any more; return its id, epoch and last number."""
    made = client.call("session/new", {"cwd": "/", "mcpServers": []})
    for _ in range(8):
        client.prompt(made["sessionId"], "a " * 300)
    return made["sessionId"], told(made)["epoch"], Told(*client.frames).last


@pytest.mark.parametrize(
    ("after", "epoch", "reason"),
    [
        (lambda last: 1, None, "too_old"),
        (lambda last: 0, None, "too_old"),
        (lambda last: last + 1, None, "too_new"),
        (lambda last: 10**30, None, "too_new"),
        (lambda last: last, "another", "epoch"),
        (lambda last: last - 1, "", "epoch"),
        (lambda last: last + 1, "another", "epoch"),
        (lambda last: 1, 7, "epoch"),
    ],
)
def test_case_52_it_is_said_why_nothing_is_replayed(small, after, epoch, reason):
    with small.acp() as first, small.acp() as second:
        session, right, last = long_session(first)
        ask = {"after": after(last), "epoch": right if epoch is None else epoch}
        result = second.call("session/resume", {"sessionId": session, "cwd": "/", **meta(**ask)})
        assert told(result) == {"recovered": False, "reason": reason, "epoch": right, "last": last}
        # Nothing is replayed; live events follow.
        first.prompt(session, "more")
        second.until_state("completed")
        known = Told(*second.frames)
        assert min([*known.events, *known.messages]) == last + 1
        assert second.text() == "more"


def test_case_52_what_is_kept_is_replayed(small):
    with small.acp() as first, small.acp() as second:
        session, right, last = long_session(first)
        for after in (last, last - 1):
            second.frames.clear()
            result = second.call(
                "session/resume", {"sessionId": session, "cwd": "/", **meta(after=after, epoch=right)}
            )
            assert told(result) == {"recovered": True, "epoch": right, "last": last}
        ended = second.until_state("completed")
        assert ours_of(ended)["seq"] == last


def test_case_52_loading_says_what_is_lost(small):
    with small.acp() as first, small.acp() as second:
        session, right, last = long_session(first)
        result = second.call("session/load", {"sessionId": session, "cwd": "/"})
        assert told(result) == {"recovered": False, "reason": "too_old", "epoch": right, "last": last}
        shown = [ours_of(f) for f in second.frames if ours_of(f)]
        lost = shown[0]["lost"]
        assert lost["from"] == 1
        assert [s["seq"] for s in shown if "seq" in s and s.get("at", 0) == 0] == list(
            range(lost["to"] + 1, last + 1)
        )
        assert lost["to"] > 4
        first.prompt(session, "more")
        second.until(lambda f: "more" in second.text())


def test_case_52_another_run_of_the_gateway_is_another_epoch(tmp_path):
    with Program(tmp_path) as program, program.chat("named") as chat, program.acp() as client:
        assert chat.ask("hello") == "hello"
        listed = client.call("session/list")["sessions"]
        first = told(client.call("session/load", {"sessionId": listed[0]["sessionId"], "cwd": "/"}))
    with Program(tmp_path) as program, program.chat("named") as chat, program.acp() as client:
        assert chat.ask("hello") == "hello"
        session = client.call("session/list")["sessions"][0]["sessionId"]
        ask = meta(after=first["last"], epoch=first["epoch"])
        result = told(client.call("session/resume", {"sessionId": session, "cwd": "/", **ask}))
        assert (result["recovered"], result["reason"]) == (False, "epoch")
        assert result["epoch"] != first["epoch"]


# --- over the end of the process: the store is on disk --------------------------------------------


def outcomes(known):
    return sum(state in ("completed", "interrupted") for state in known.states)


def same(known, whole):
    """Assert that a client knows what a session's log has, but for its own prompts, which are not echoed live."""
    prompts = {n for n, update in whole.events.items() if update["sessionUpdate"] == "user_message_chunk"}
    assert known.messages == whole.messages
    assert {n: update for n, update in known.events.items() if n not in prompts} == {
        n: update for n, update in whole.events.items() if n not in prompts
    }
    assert sorted([*whole.events, *whole.messages]) == list(range(1, whole.last + 1))


@pytest.mark.parametrize("how", [*ENDS, "restarted in place"])
def test_case_51_the_gateway_itself_goes_and_comes(how, tmp_path):
    """A turn, an exec and a prompt that waits; a client that has seen a part of that resumes behind it, and once more."""
    config = on_disk(tmp_path, CONFIG)
    if how == "restarted in place":
        config = config.replace("[agent]", '[server]\nport = 0\nrestart = "exec"\n[agent]', 1)
    with contextlib.ExitStack() as stack:
        program = stack.enter_context(Program(tmp_path, config))
        first = program.acp()
        made = first.call("session/new", {"cwd": "/", "mcpServers": []})
        session, epoch = made["sessionId"], told(made)["epoch"]
        first.ask_prompt(session, WORDS, key="k")
        first.ask_prompt(session, "waits", key="w")
        first.ask_prompt(session, "/lines", key="l")
        first.until(lambda f: "word20 " in first.text() and Told(*first.frames).states.count("queued") == 3)
        until_stored(tmp_path, "word0")
        until_stored(tmp_path, "line 1")  # of a text that is not on the disk yet the client keeps what it has
        if how == "restarted in place":
            program.signal(signal.SIGUSR1)
            assert first.code == 1012
        else:
            end(program, how)
            program = stack.enter_context(Program(tmp_path, config))
            assert first.code == (1006 if how == "killed" else 1012)
        had = list(first.frames)
        for _ in range(2):
            second, result = come_back(program, session, "resume", after=Told(*had).last, epoch=epoch)
            assert (result["recovered"], result["epoch"]) == (True, epoch)
            with second:
                second.until(lambda f, s=second, had=had: outcomes(Told(*had, *s.frames)) == 3)
                had += second.frames
        third, _ = come_back(program, session)
        with third:
            whole = Told(*third.frames)
        same(Told(*had), whole)
        texts = list(whole.messages.values())
        (answer,) = [text for text in texts if text.startswith("word0")]  # the exec may have begun to speak first
        assert WORDS.startswith(answer)
        assert len(answer) > 20
        assert "waits" in texts
        assert whole.states.count("queued") == 3


def test_case_52_over_a_restart_the_epoch_stands_and_what_is_too_new_or_of_another_is_named(tmp_path):
    config = on_disk(tmp_path, SMALL)
    with Program(tmp_path, config) as program, program.acp() as first:
        session, epoch, last = long_session(first)
        end(program, "killed")
    with Program(tmp_path, config) as program:
        for ours, reason in (
            ({"after": last + 1, "epoch": epoch}, "too_new"),
            ({"after": 10**30, "epoch": epoch}, "too_new"),
            ({"after": last, "epoch": "another"}, "epoch"),
        ):
            client, found = come_back(program, session, "resume", **ours)
            client.close()
            assert found == {"recovered": False, "reason": reason, "epoch": epoch, "last": last}
        # What memory had forgotten is on the disk: nothing is too old.
        for after in (0, 1, last - 1, last):
            client, found = come_back(program, session, "resume", after=after, epoch=epoch)
            assert found == {"recovered": True, "epoch": epoch, "last": last}
            with client:
                if after < last:
                    client.until(lambda f: ours_of(f).get("seq") == last)
                known = Told(*client.frames)
                assert sorted({*known.events, *known.messages} - set(range(after + 1))) == list(
                    range(after + 1, last + 1)
                )


def test_case_52_over_a_restart_what_retention_took_is_too_old(tmp_path):
    config = on_disk(tmp_path, SMALL) + "keep_events = 100\n"
    with Program(tmp_path, config) as program, program.acp() as first:
        made = first.call("session/new", {"cwd": "/", "mcpServers": []})
        session, epoch = made["sessionId"], told(made)["epoch"]
        for _ in range(120):
            first.prompt(session, "a")
        last = Told(*first.frames).last
        wait_until(lambda: rows(tmp_path, "SELECT min(number) FROM events") > [(1,)])
        end(program, "killed")
    ((lowest,),) = rows(tmp_path, "SELECT min(number) FROM events")
    with Program(tmp_path, config) as program:
        client, found = come_back(program, session, "resume", after=0, epoch=epoch)
        client.close()
        assert found == {"recovered": False, "reason": "too_old", "epoch": epoch, "last": last}
        client, found = come_back(program, session)
        with client:
            assert (found["recovered"], found["reason"]) == (False, "too_old")
            lost = next(ours_of(f)["lost"] for f in client.frames if "lost" in ours_of(f))
            known = Told(*client.frames)
            assert lost["from"] == 1
            assert lost["to"] >= lowest - 1
            assert sorted([*known.events, *known.messages]) == list(range(lost["to"] + 1, last + 1))
