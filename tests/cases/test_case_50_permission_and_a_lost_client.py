"""Case 50: a permission request is open when the client drops. It is shown again on attaching, or reported as
lapsed; never silently granted or denied. A real process, real sockets, the agent of examples/careful.py.
"""

import json
import signal
from pathlib import Path

import pytest
from restarts import ENDS, end, on_disk, states

from harness import Program, Refused, ours_of

ASKING = Path(__file__).parent / "programs" / "asking.py"
LONG = "[session]\npermission_seconds = 600\nturn_idle_seconds = 600\n"


@pytest.fixture
def program(tmp_path):
    with Program(tmp_path, LONG, script=ASKING) as running:
        yield running


def until_asked(client, more_than=()):
    return client.until(lambda f: f.get("method") == "session/request_permission" and f["id"] not in more_than)


def select(client, asked, option):
    outcome = {"outcome": {"outcome": "selected", "optionId": option}}
    client.send({"jsonrpc": "2.0", "id": asked["id"], "result": outcome})


def permissions(client):
    return [p for frame in client.frames if (p := ours_of(frame).get("permission"))]


def drop(client):
    """Cut the socket without a word, as a network does."""
    client.websocket.socket.close()


def load(program, session):
    client = program.acp()
    client.call("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
    return client


def begun(program, text="delete x"):
    """Return a session in which the agent asks, and the client that it asks."""
    client = program.acp()
    session = client.new_session()
    client.ask_prompt(session, text, key="k1")
    return session, client, until_asked(client)


@pytest.mark.parametrize(("option", "answer"), [("once", "Done: delete x"), ("no", "Not done: denied.")])
def test_case_50_it_is_asked_again_of_whoever_comes_back(program, option, answer):
    session, client, asked = begun(program)
    drop(client)
    with load(program, session) as back:
        again = until_asked(back)
        assert again["params"] == asked["params"]
        assert not permissions(back), "it was neither granted nor denied"
        joined = back.ask_prompt(session, "delete x", key="k1")
        select(back, again, option)
        assert back.answer(joined)["stopReason"] == "end_turn"
        assert back.text() == answer
        (end,) = permissions(back)
        assert (end["state"], end["optionId"], end["by"]) == ("selected", option, "local")


def test_case_50_it_is_asked_again_of_one_that_resumes_behind_it(program):
    session, client, asked = begun(program)
    seq = asked["params"]["toolCall"]["_meta"]["gateway-trio"]["seq"]
    drop(client)
    with program.acp() as back:
        meta = {"gateway-trio": {"after": seq}}
        result = back.call("session/resume", {"sessionId": session, "cwd": "/", "_meta": meta})
        assert result["_meta"]["gateway-trio"]["recovered"] is True
        select(back, until_asked(back), "once")
        back.until_state("completed")
        assert back.text() == "Done: delete x"


def test_case_50_over_chat_it_is_asked_again_and_answered_by_command(program):
    client = program.chat()
    client.send("delete x")
    notice = client.until("· the agent asks: delete x (/allow")[-1]
    drop(client)
    with program.chat() as back:
        assert back.until("the agent asks")[-1] == notice
        back.send("/allow")
        frames = back.until("Done: delete x")
        assert any("was answered by local: Allow" in frame for frame in frames)
    with program.chat() as late:
        assert late.ask("/history").endswith("agent: Done: delete x"), "and no request is shown before it"


def test_case_50_where_nobody_comes_back_it_is_reported_as_lapsed(tmp_path):
    with Program(tmp_path, "[session]\npermission_seconds = 0.3\n", script=ASKING) as program:
        session, client, asked = begun(program)
        drop(client)
        line = json.loads(program.wait_log('"permission answered"'))
        assert (line["outcome"], line["by"]) == ("lapsed", None)
        assert "delete x" not in program.text, "what it is about is not for the log"
        with load(program, session) as back:
            back.until_state("completed")
            assert [p["state"] for p in permissions(back)] == ["asked", "lapsed"]
            assert [f for f in back.frames if f.get("method") == "session/request_permission"] == []
            assert back.text() == "Not done: lapsed."
            select(back, asked, "once")  # far too late, and to nothing
            assert back.prompt(session, "/allow")["stopReason"] == "end_turn"
            assert back.text().endswith("Nothing asks for permission in this session.")


def test_case_50_of_two_clients_the_first_that_answers_decides(program):
    session, one, first = begun(program)
    with load(program, session) as two, program.chat() as elsewhere:
        second = until_asked(two)
        assert elsewhere.ask("/allow") == "Nothing asks for permission in this session."
        select(two, second, "no")
        two.until_state("completed")
        withdrawn = one.until(lambda f: f.get("method") == "$/cancel_request")
        assert withdrawn["params"]["requestId"] == first["id"]
        select(one, first, "once")
        one.call("_gateway-trio/status")  # the late answer was read before this
        assert one.text() == two.text() == "Not done: denied."
        assert not [f for f in two.frames if f.get("method") == "$/cancel_request"]


def test_case_50_an_option_of_the_agents_own_reaches_it(program):
    """`always` holds for the session: the next turn asks nobody."""
    session, client, asked = begun(program)
    with client:
        select(client, asked, "always")
        client.until_state("completed")
        client.prompt(session, "delete y")
        assert client.text() == "Done: delete xDone: delete y"


def test_case_50_a_drain_that_cuts_the_turn_withdraws_the_request(tmp_path):
    with Program(tmp_path, "[drain]\ngrace_seconds = 0.5\n", script=ASKING) as program:
        _, client, asked = begun(program)
        program.signal(signal.SIGTERM)
        assert client.code == 1012
        withdrawn = [f["params"]["requestId"] for f in client.frames if f.get("method") == "$/cancel_request"]
        assert withdrawn == [asked["id"]]
        assert [p["state"] for p in permissions(client)] == ["cancelled"]
        assert program.wait() == 0
        assert program.report["turns_interrupted"] == 1


def test_case_50_malformed_answers_harm_nobody(program):
    session, client, asked = begun(program)
    with client:
        for frame in (
            {"id": asked["id"], "result": {"outcome": {"outcome": "selected", "optionId": {"a": [1]}}}},
            {
                "id": asked["id"],
                "result": {"outcome": {"outcome": "selected", "optionId": "once"}},
            },  # not any more
            {"id": 10**30, "result": 1},
            {"id": [1], "result": 1},
            {"id": True, "error": None},
            {"result": {}},
        ):
            client.send({"jsonrpc": "2.0", **frame})
        assert client.prompt(session, "/deny")["stopReason"] == "end_turn"
        client.until_state("completed")
        assert "Not done: denied." in client.text()


def test_case_50_an_answer_to_an_earlier_connection_decides_nothing_else(program):
    """A client comes back into another session, and sends what its user chose before it was gone."""
    _, client, asked = begun(program)
    drop(client)
    _, back, second = begun(program, "delete everything")
    with back:
        select(back, asked, "once")
        back.call("_gateway-trio/status")  # that was read before this
        assert permissions(back) == []
        select(back, second, "no")
        back.until_state("completed")
        assert back.text() == "Not done: denied."


@pytest.mark.parametrize("how", ENDS)
def test_case_50_over_the_end_of_the_process_it_is_withdrawn_and_never_granted(how, tmp_path):
    config = on_disk(tmp_path, LONG)
    with Program(tmp_path, config, script=ASKING) as program:
        session, client, asked = begun(program)
        client.ask_prompt(session, "delete y", key="k2")
        client.until(lambda f: ours_of(f).get("turn", {}).get("key") == "k2")
        end(program, how)
    with Program(tmp_path, config, script=ASKING) as program, load(program, session) as back:
        second = until_asked(back)  # the prompt that waited asks for itself
        assert second["params"]["toolCall"]["title"] == "delete y"
        assert states(back)["k1"] == ["queued", "running", "interrupted"]
        first = asked["params"]["toolCall"]["_meta"]["gateway-trio"]["permissionId"]
        assert [p["state"] for p in permissions(back) if p["id"] == first] == ["asked", "cancelled"]
        select(back, asked, "once")  # what was asked in another life is answered in none
        with pytest.raises(Refused) as caught:
            back.prompt(session, "delete x", key="k1")
        assert caught.value.reason == "interrupted"
        select(back, second, "no")
        back.until_state("completed")
        assert back.text() == "Not done: denied."
