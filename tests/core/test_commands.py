import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_trio.core.commands import (
    BUILT_INS,
    AliasCommand,
    Catalog,
    ExecCommand,
    Refusal,
    Role,
    RunBuiltIn,
    RunExec,
    ToAgent,
    Unknown,
    decide,
    decide_exec,
)
from gateway_trio.core.phases import ADMITS, Lane, Phase

CLEANUP = ExecCommand("clean_up", "rm -f /tmp/x")
NOTE = ExecCommand("note", "x", args="text", role=Role.USER)
LOGS = ExecCommand("logs", "x", args="words", role=Role.USER)
CATALOG = Catalog.build(
    [
        CLEANUP,
        NOTE,
        LOGS,
        AliasCommand("c", "/clean_up"),
        AliasCommand("cc", "/c"),
        AliasCommand("buy", "/note buy"),
        AliasCommand("narrow", "/note", role=Role.ADMIN),
        AliasCommand("ssh", "/logs ssh 'a b'"),
        AliasCommand("h", "/history 5"),
        AliasCommand("again", "/retry"),
        AliasCommand("q", "/queue"),
        AliasCommand("d", "/drain"),
    ]
)
DRAINING = [Phase.DRAINING, Phase.CANCELLING, Phase.FINISHING]
CLOSING = [Phase.CLOSING, Phase.CLOSED]
SERVING = [Phase.OPEN, *DRAINING]


def say(text, phase=Phase.OPEN, role=Role.ADMIN):
    return decide(text, catalog=CATALOG, role=role, admits=lambda lane: lane in ADMITS[phase])


def request(name, args=(), phase=Phase.OPEN, role=Role.ADMIN):
    return decide_exec(name, args, catalog=CATALOG, role=role, admits=lambda lane: lane in ADMITS[phase])


# --- text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("hello", "hello"),
        ("", ""),
        (" /status", " /status"),
        ("//status x", "/status x"),
        ("//", "/"),
        ("///x", "//x"),
        ("/usr/bin/env x", "/usr/bin/env x"),
        ("tell me of /status", "tell me of /status"),
    ],
)
def test_text_goes_to_the_agent_and_not_while_draining(text, sent):
    assert say(text) == ToAgent(sent)
    for phase in DRAINING:
        refusal = say(text, phase)
        assert (refusal.reason, refusal.command, refusal.via) == ("draining", None, None)
        assert refusal.message.startswith("The gateway is draining; nothing was sent to the agent.")
    for phase in CLOSING:
        assert say(text, phase) == Refusal("draining", "The gateway is closing; nothing was sent to the agent.")


# --- unknown: the same in every state (case 4) --------------------------------------------------------


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("name", ["", "stauts", "Ünïcode", "zzzzzz", "status" * 1000, "\ud800"])
def test_an_unknown_command_is_told_in_every_state(name, phase):
    verdict = say(f"/{name} x", phase)
    assert isinstance(verdict, Unknown)
    assert verdict.name == name
    assert isinstance(request(name, [], phase), Unknown)
    assert len(verdict.notice) < 700


def test_the_notice_names_near_ones_that_the_asker_may_run():
    assert say("/stauts", role=Role.USER).notice == (
        "There is no command /stauts. Did you mean /status? "
        "/commands lists yours; //stauts goes to the agent as text."
    )
    assert "Did you mean /status or /restart?" in say("/stauts").notice
    assert say("/zzzzzz").near == ()
    assert "Did you mean" not in say("/zzzzzz").notice
    assert say("/cleanup").near == ("clean_up",)
    assert say("/cleanup", role=Role.USER).near == request("cleanup", role=Role.USER).near == ()


# --- what runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", SERVING)
def test_exec_and_control_commands_run_in_every_phase_before_closing(phase):
    assert say("/CLEAN-up", phase) == RunExec(CLEANUP, ())
    assert request("CLEAN-up", [], phase) == RunExec(CLEANUP, ())
    assert say("/note buy milk", phase, Role.USER) == RunExec(NOTE, ("buy milk",))
    for text, name, rest in [
        ("/status", "status", ""),
        ("/history 5", "history", "5"),
        ("/kill 7 ", "kill", "7"),
    ]:
        assert say(text, phase, Role.USER) == RunBuiltIn(BUILT_INS[name], rest)
    assert say("/drain new disk", phase) == RunBuiltIn(BUILT_INS["drain"], "new disk")


@pytest.mark.parametrize("phase", CLOSING)
@pytest.mark.parametrize("text", ["/clean_up", "/status", "/retry", "/c", "/again", "/status x"])
def test_nothing_runs_while_closing(text, phase):
    refusal = say(text, phase)
    assert (refusal.reason, refusal.message) == ("draining", "The gateway is closing; nothing was run.")


def test_aliases_put_their_words_first_and_are_named():
    assert say("/buy milk") == RunExec(NOTE, ("buy milk",), "buy")
    assert say("/buy") == RunExec(NOTE, ("buy",), "buy")
    assert say("/ssh 'c d'") == RunExec(LOGS, ("ssh", "a b", "c d"), "ssh")
    assert say("/H") == RunBuiltIn(BUILT_INS["history"], "5", "h")
    assert say("/cc") == RunExec(CLEANUP, (), "cc")
    assert say("/q  buy milk") == RunBuiltIn(BUILT_INS["queue"], " buy milk", "q")
    assert request("ssh", ["c d", "'"]) == RunExec(LOGS, ("ssh", "a b", "c d", "'"), "ssh")
    assert request("buy", ["milk"]) == RunExec(NOTE, ("buy milk",), "buy")


HOSTILE = ["; rm -rf x", "$(id)", "`id`", 'a b "c d"', "*", "-n", "%s%n", "a\nb", " x "]


@pytest.mark.parametrize("word", HOSTILE)
def test_case_27_each_word_arrives_as_it_is(word):
    assert say(f"/note {word}") == RunExec(NOTE, (word,))
    assert request("note", [word]) == RunExec(NOTE, (word,))
    assert request("logs", [word, "", word]) == RunExec(LOGS, (word, "", word))


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=32))
def test_a_list_of_words_is_never_split(words):
    assert request("logs", words) == RunExec(LOGS, tuple(words))


# --- usage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/clean_up now", "/clean_up takes nothing after its name. Nothing was run. Usage: /clean_up"),
        ("/c now", "/clean_up takes nothing after its name. Nothing was run. Usage: /clean_up"),
        ("/logs 'x", "A quote was left open. Nothing was run. Usage: /logs [WORD …]"),
        ("/logs " + "a " * 33, "There are more than 32 words. Nothing was run. Usage: /logs [WORD …]"),
        ("/note \0", "Word 1 holds a NUL. Nothing was run. Usage: /note [TEXT]"),
        ("/note \ud800", "Word 1 holds a lone surrogate. Nothing was run. Usage: /note [TEXT]"),
        ("/note " + "é" * 2049, "Word 1 is longer than 4096 bytes. Nothing was run. Usage: /note [TEXT]"),
        ("/queue", "/queue does not take that. Nothing was run. Usage: /queue TEXT"),
        ("/interrupt \n", "/interrupt does not take that. Nothing was run. Usage: /interrupt TEXT"),
        ("/history x", "/history does not take that. Nothing was run. Usage: /history [n]"),
        ("/kill", "/kill does not take that. Nothing was run. Usage: /kill ID"),
        ("/undrain shutdown", "/undrain does not take that. Nothing was run. Usage: /undrain [REASON]"),
        ("/status x", "/status does not take that. Nothing was run. Usage: /status"),
    ],
)
def test_words_that_a_command_does_not_take(text, message):
    refusal = say(text)
    assert (refusal.reason, refusal.message) == ("usage", message)
    assert refusal.command is not None


def test_a_request_with_wrong_words_or_for_a_built_in_is_refused():
    assert request("clean_up", ["now"]).message.startswith("/clean_up takes nothing")
    assert request("note", ["a", "b"]).reason == "usage"
    refusal = request("h")
    assert (refusal.reason, refusal.command, refusal.via) == ("usage", BUILT_INS["history"], "h")
    assert refusal.message == "/h is no exec command. Nothing was run; send it as a prompt."


# --- cases 6 and 7: no other road to the agent --------------------------------------------------------


@pytest.mark.parametrize("phase", DRAINING)
@pytest.mark.parametrize("text", ["/retry", "/Retry", "/new", "/queue x", "/queue", "/interrupt x"])
def test_what_may_need_the_agent_is_refused_while_draining(text, phase):
    assert isinstance(say(text), RunBuiltIn) or text == "/queue"
    refusal = say(text, phase)
    assert refusal.reason == "draining"
    assert "nothing was sent to it. Send it when the drain is over" in refusal.message
    assert refusal.command.lane is Lane.TURN


@pytest.mark.parametrize("phase", DRAINING)
@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("/buy milk", "Type /note buy milk instead."),
        ("/h", "Type /history 5 instead."),
        ("/cc", "Type /clean_up instead."),
        ("/cc now", "Type /clean_up now instead."),
        ("/again", "It stands for /retry: type that when the drain is over"),
        ("/q do it", "It stands for /queue do it: type that when the drain is over"),
    ],
)
def test_an_alias_is_refused_while_draining_and_told_what_to_type(text, instead, phase):
    refusal = say(text, phase)
    assert (refusal.reason, refusal.via) == ("draining", text[1:].split()[0])
    assert instead in refusal.message


def test_an_alias_by_request_is_refused_while_draining_too():
    refusal = request("buy", ["milk"], Phase.DRAINING)
    assert (refusal.reason, refusal.via) == ("draining", "buy")
    assert "Type /note buy milk instead." in refusal.message


def test_a_refusal_does_not_repeat_a_whole_prompt():
    assert len(say("/buy " + "milk" * 100_000, Phase.DRAINING).message) < 400


@given(st.text(), st.sampled_from([phase for phase in Phase if phase is not Phase.OPEN]))
def test_nothing_reaches_the_agent_but_in_phase_open(text, phase):
    for spelled in (text, f"/{text}", f"//{text}", f"/queue {text}", f"/again {text}", f"/q {text}"):
        verdict = say(spelled, phase)
        assert not isinstance(verdict, ToAgent)
        assert not (isinstance(verdict, RunBuiltIn) and verdict.command.lane is Lane.TURN)
        assert not getattr(verdict, "via", None) or isinstance(verdict, Refusal)


# --- case 35: who may, in every state x spelling x indirection -----------------------------------------

DENIED = {
    "clean_up": ["clean_up", "CLEAN_UP", "clean-up", "Clean-Up"],
    "through aliases": ["c", "C", "cc"],
    "an alias of its own role": ["narrow", "NARROW"],
    "built in": ["drain", "Undrain", "RESTART", "d"],
}
WORDS = ["", " now", " 'open", "\nnow", " \0"]


@pytest.mark.parametrize("phase", SERVING + CLOSING + [Phase.STARTING])
@pytest.mark.parametrize(("name", "rest"), list(itertools.product(itertools.chain(*DENIED.values()), WORDS)))
def test_case_35_a_user_is_denied_in_every_state_spelling_and_indirection(name, rest, phase):
    for refusal in (say(f"/{name}{rest}", phase, Role.USER), request(name, [rest], phase, Role.USER)):
        assert isinstance(refusal, Refusal)
        assert refusal.reason == "forbidden"
        assert "takes the role admin. Nothing was run." in refusal.message
        assert refusal.command.name in {"clean_up", "note", "drain", "undrain", "restart"}  # for the audit
        assert refusal.via is None or refusal.via == name.lower()
    assert getattr(say(f"/{name}", phase, Role.ADMIN), "reason", "") != "forbidden"
