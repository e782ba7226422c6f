"""Cases 44, 46, 47 and 48 over the end of a process and the start of the next: what was accepted runs once, or is
named as interrupted. A real process, its store on disk, an agent that notes each turn in a file.
"""

import pytest
from processes import wait_until
from restarts import ENDS, NOTING, begin, come_back, end, noted, on_disk, queue, ran, states, until_stored

from harness import Program, Refused


@pytest.fixture
def start(tmp_path):
    """Starts the gateway on the store of this test."""
    return lambda config="": Program(tmp_path, on_disk(tmp_path, config), script=NOTING)


def refusal(client, asked):
    with pytest.raises(Refused) as caught:
        client.answer(asked)
    return caught.value


@pytest.mark.parametrize("how", ENDS)
def test_case_44_what_waited_runs_once_after_it_and_before_what_is_new(how, start, tmp_path):
    with start() as program, program.acp() as client:
        session = client.new_session()
        slow = begin(client, session, key="slow")
        one, two = (queue(client, session, prompt) for prompt in ("one", "two"))
        end(program, how)
        if how != "killed":
            for waits in (one, two):
                told = refusal(client, waits)
                assert (told.code, told.reason) == (-32010, "draining")
                assert (told.data["admitted"], told.data["retryable"]) == (True, False)
            assert refusal(client, slow).code == -32800
    assert ran(tmp_path) == ["slow"]
    with start() as program:
        client, _ = come_back(program, session, "resume", after=0)
        with client:
            # Whether it has been answered by now or not: the same key is the same prompt.
            assert client.prompt(session, "two", key="two")["stopReason"] == "end_turn"
            assert client.prompt(session, "new", key="new")["stopReason"] == "end_turn"
            assert ran(tmp_path) == ["slow", "one", "two", "new"]
            assert states(client) == {
                "slow": ["queued", "running", "interrupted"],
                **{key: ["queued", "running", "completed"] for key in ("one", "two", "new")},
            }
        end(program, how)
    with start() as program:
        client, found = come_back(program, session)
        with client:
            assert found["recovered"] is True
            assert states(client)["one"] == ["queued", "running", "completed"]
            assert client.prompt(session, "one", key="one")["stopReason"] == "end_turn"
    assert ran(tmp_path) == ["slow", "one", "two", "new"]


def test_case_44_also_over_many_crashes(start, tmp_path):
    """Five prompts wait; the gateway is killed again and again before it gets far. None is lost, none runs twice."""
    prompts = [f"slow {number}" for number in range(5)]
    with start() as program, program.acp() as client:
        session = client.new_session()
        begin(client, session, prompts[0], key=prompts[0])
        for prompt in prompts[1:]:
            queue(client, session, prompt)
        end(program, "killed")
    for number in range(1, 5):
        with start() as program:
            client, _ = come_back(program, session)
            client.until(lambda _, c=client, n=number: states(c)[prompts[n]][-1] == "running")
            client.close()
            end(program, "killed")
    with start() as program:
        client, _ = come_back(program, session)
        with client:
            assert states(client) == {key: ["queued", "running", "interrupted"] for key in prompts}
            assert client.prompt(session, "new")["stopReason"] == "end_turn"
    # A turn that was killed between its row and its first line may have noted nothing.
    done = ran(tmp_path)
    assert done == [p for p in [*prompts, "new"] if p in done]
    assert done[-1] == "new"


@pytest.mark.parametrize("how", ENDS)
def test_case_46_the_same_key_on_two_sockets_at_once_over_it(how, start, tmp_path):
    with start() as program, program.acp() as first, program.acp() as second:
        session = first.new_session()
        second.call("session/resume", {"sessionId": session, "cwd": "/"})
        asked = [client.ask_prompt(session, "quick", key="k") for client in (first, second)]
        for client, id_ in zip((first, second), asked, strict=True):
            assert client.answer(id_)["stopReason"] == "end_turn"
        begin(first, session, key="slow")
        queue(first, session, "waits")
        end(program, how)
    with start() as program:
        clients = [come_back(program, session, "resume")[0] for _ in range(2)]
        asked = [
            (client, client.ask_prompt(session, prompt, key=key))
            for prompt, key in (("waits", "waits"), ("quick", "k"), ("slow", "slow"), ("again", "new"))
            for client in clients
        ]
        answers = []
        for client, id_ in asked:
            try:
                answers.append(client.answer(id_)["stopReason"])
            except Refused as refused:
                answers.append(refused.reason)
        assert answers == ["end_turn"] * 4 + ["interrupted"] * 2 + ["end_turn"] * 2
        for client in clients:
            assert refusal(client, client.ask_prompt(session, "other", key="k")).reason == "conflict"
            client.close()
    assert sorted(ran(tmp_path)) == ["again", "quick", "slow", "waits"]


def test_case_47_what_failed_or_is_stale_is_not_run_later(start, tmp_path):
    with start() as program, program.acp() as client:
        session = client.new_session()
        assert refusal(client, client.ask_prompt(session, "fail", key="fail")).reason == "failed"
        begin(client, session, key="slow")
        queue(client, session, "waits")
        end(program, "killed")
    with start("[session]\nqueued_seconds = 0.001\n") as program:
        client, _ = come_back(program, session)
        with client:
            assert {key: told[-1] for key, told in states(client).items()} == {
                "fail": "failed",
                "slow": "interrupted",
                "waits": "interrupted",
            }
            assert refusal(client, client.ask_prompt(session, "waits", key="waits")).data["admitted"] is True
        end(program, "shut down")
    with start() as program:
        client, _ = come_back(program, session)
        with client:
            assert refusal(client, client.ask_prompt(session, "fail", key="fail")).reason == "failed"
            assert client.prompt(session, "new")["stopReason"] == "end_turn"
    assert ran(tmp_path) == ["fail", "slow", "new"]


@pytest.mark.parametrize("how", ENDS)
def test_case_48_the_history_has_the_words_once_and_the_part_marked(how, start, tmp_path):
    with start() as program, program.acp() as client:
        session = client.new_session()
        client.prompt(session, "before")
        begin(client, session, key="slow")
        until_stored(tmp_path, "half ")
        end(program, how)
    with start() as program:
        client, _ = come_back(program, session)
        with client:
            assert client.text() == "to before" + "half "
            assert client.prompt(session, "next")["stopReason"] == "end_turn"
            before = [["user", "before", False], ["assistant", "to before", False]]
            part = [["user", "slow", False], ["assistant", "half ", True]]
            assert noted(tmp_path)[-1] == ("next", before + part)
        with program.chat("other") as chat:
            assert chat.ask("hello") == "to hello"


@pytest.mark.parametrize("how", ENDS)
def test_case_48_retry_runs_the_interrupted_one_again(how, start, tmp_path):
    """Also where a prompt that waited behind it has been answered meanwhile."""
    with start() as program, program.chat() as chat:
        chat.send("slow")
        wait_until(lambda: ran(tmp_path) == ["slow"])
        chat.send("waits")
        chat.until("· queued")
        end(program, how)
    with start() as program, program.chat() as chat, program.acp() as client:
        (kept,) = client.call("session/list")["sessions"]
        client.call("session/load", {"sessionId": kept["sessionId"], "cwd": "/", "mcpServers": []})
        client.until_state("completed")
        chat.send("/history")
        chat.until("you: slow")
        chat.send("/retry")
        wait_until(lambda: ran(tmp_path) == ["slow", "waits", "slow"])
        waited = [["user", "waits", False], ["assistant", "to waits", False]]
        assert noted(tmp_path)[-1] == ("slow", waited), "the first attempt is in no history"
