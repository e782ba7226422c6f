"""`gateway-trio ctl` as people and scripts run it: real processes on both sides."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ctl import Ctl, OnTerminal, ctl, ctl_json, environment, free_port
from harness import Acp, Program

CONFIG = """
[agent]
words_per_second = 0.5

[quick_commands.words]
type = "exec"
command = 'printf "<%s>" "$@"; exit 7'
args = "words"

[quick_commands.fine]
type = "exec"
command = "echo out; echo why >&2"

[quick_commands.dies]
type = "exec"
command = "kill -9 $$"

[quick_commands.slow]
type = "exec"
command = "echo before; sleep 300"
timeout_seconds = 3

[quick_commands.long]
type = "exec"
command = "echo before; exec sleep 300"

[quick_commands.missing]
type = "exec"
argv = ["/no/such/program"]
"""


def token_table(name, role):
    digest = hashlib.sha256(f"token-of-{name}".encode()).hexdigest()
    return f'[[auth.tokens]]\nname = "{name}"\nrole = "{role}"\nsha256 = "{digest}"\n'


TOKENS = token_table("ann", "admin") + token_table("bob", "user")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    with Program(tmp_path_factory.mktemp("gateway"), CONFIG) as program:
        yield program


@pytest.fixture
def turn(program):
    """A turn of minutes; calling it stops that."""
    with program.acp() as client:
        session = client.new_session()
        client.ask_prompt(session, "word " * 100)
        client.until_state("running")

        def stop():
            client.notify("session/cancel", {"sessionId": session})

        yield stop
        stop()
        client.until_state("cancelled")
        assert ctl(program, "undrain")[0] == 0


def counting(program):
    """A client that is told how much runs."""
    client = Acp(program.open("/acp"))
    counts = {"_meta": {"gateway-trio": {"counts": True}}}
    client.call("initialize", {"protocolVersion": 1, "clientCapabilities": counts})
    return client


def status(program):
    code, told = ctl_json(program, "status")
    assert code == 0
    return told


# --- each verb ---


def test_status_is_a_table_or_what_the_gateway_says(program):
    code, out, err = ctl(program, "status")
    assert (code, err) == (0, "")
    assert out.split()[:2] == ["phase", "open"]
    assert {"turns", "execs", "breaker", "connections", "sessions", "started"} <= set(out.split())
    told = status(program)
    assert (told["phase"], told["turns"], told["running"]) == ("open", 0, [])


def test_drain_and_undrain(program):
    code, out, _ = ctl(program, "drain", "a look inside")
    assert code == 0
    assert out.startswith("draining because of operator")
    assert status(program)["asked"]["operator"]["why"] == "a look inside"
    assert "a look inside" in ctl(program, "status")[1]
    code, answer = ctl_json(program, "drain")
    assert (code, answer["outcome"], answer["status"]["reasons"]) == (0, "draining", ["operator"])
    assert ctl(program, "undrain")[:2] == (0, "open\n")
    code, answer = ctl_json(program, "undrain")
    assert (code, answer["outcome"]) == (0, "open")
    assert ctl(program, "undrain", "full-moon")[0] == 2


@pytest.mark.parametrize("words", [("exec", "words", b"\xff"), ("drain", b"x\xff"), ("kill", b"\xff")])
def test_words_that_are_not_utf_8_are_not_sent(program, words):
    code, out, err = ctl(program, *words)
    assert (code, out) == (2, "")
    assert "UTF-8" in err


def test_exec_hands_on_output_and_exit_code(program):
    assert ctl(program, "exec", "fine") == (0, "out\nwhy\n", "")
    code, out, err = ctl(program, "exec", "words", "a b", "$(id)", "-n", "", "--", "--json")
    assert (code, out) == (7, "<a b><$(id)><-n><><--json>")
    assert "exit code 7" in err
    code, facts = ctl_json(program, "exec", "words", "c")
    assert (code, facts["exitCode"], facts["output"]) == (7, 7, "<c>")


@pytest.mark.parametrize(
    ("name", "code", "out"), [("dies", 137, ""), ("slow", 124, "before\n"), ("missing", 125, ""), ("nope", 2, "")]
)
def test_exec_of_what_does_not_end_by_itself(program, name, code, out):
    assert ctl(program, "exec", name)[:2] == (code, out)
    assert ctl_json(program, "exec", name)[0] == code


def test_kill_ends_what_status_lists(program):
    with counting(program) as client, Ctl(program, "exec", "long") as running:
        client.until(lambda f: f.get("params", {}).get("execs") == 1)
        (exec_,) = status(program)["running"]
        assert (exec_["name"], exec_["by"]) == ("long", "local")
        assert ctl(program, "kill", exec_["id"]) == (0, f"killing {exec_['id']}\n", "")
        code, out = running.end()
        assert code == 125
        assert out in ("", "before\n"), "it may not have come to that"
        assert "killed" in running.lines[-1]
    code, answer = ctl_json(program, "kill", exec_["id"])
    assert (code, answer["error"]["reason"], answer["error"]["exit"]) == (1, "unknown_exec", 1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_exec_ends_the_command_too(program, number, code):
    with counting(program) as client, Ctl(program, "exec", "long") as running:
        client.until(lambda f: f.get("params", {}).get("execs") == 1)
        running.interrupt(number)
        ended, out = running.end()
        assert ended == code
        assert out in ("", "before\n"), "it may not have come to that"
        assert "cancelled" in running.lines[-1]
    assert status(program)["running"] == []


def test_restart_refuses_a_broken_config_and_then_restarts(tmp_path):
    with Program(tmp_path, CONFIG) as program:
        good = program.config.read_text()
        program.config.write_text(good + "\n[nonsense]\n")
        code, _, err = ctl(program, "restart")
        assert code == 1
        assert "nonsense" in err
        code, answer = ctl_json(program, "restart")
        assert (code, answer["error"]["reason"]) == (1, "conflict")
        program.config.write_text(good)
        code, answer = ctl_json(program, "restart")
        assert (code, answer["outcome"]) == (0, "restarting")
        assert program.wait() == 75


# --- who, and where ---


def test_tokens_decide_who_may(tmp_path):
    with Program(tmp_path, CONFIG + TOKENS) as program:
        assert ctl(program, "status", token="token-of-bob")[0] == 0
        assert ctl(program, "drain", token="token-of-ann")[0] == 0
        for verb in (["undrain"], ["drain", "--wait"], ["restart", "--wait"], ["exec", "fine"]):
            code, answer = ctl_json(program, *verb, token="token-of-bob")
            assert (code, answer["error"]["reason"]) == (77, "forbidden"), verb
        for token in (None, "token-of-nobody"):
            code, out, err = ctl(program, "status", token=token)
            assert (code, out) == (77, "")
            assert "token-of" not in err
            code, answer = ctl_json(program, "status", token=token)
            assert (code, answer["error"]["reason"]) == (77, "unauthorized")
        assert ctl(program, "status", token="é")[0] == 78
        assert "token-of" not in program.text


def test_a_connection_whose_token_is_revoked_ends_a_wait(tmp_path):
    with Program(tmp_path, CONFIG + TOKENS + token_table("cid", "admin")) as program:
        headers = {"Authorization": "Bearer token-of-ann"}
        with Acp(program.open("/acp", additional_headers=headers)) as client:
            client.initialize()
            client.ask_prompt(client.new_session(), "word " * 100)
            client.until_state("running")
            with Ctl(program, "drain", "--wait", "--json", token="token-of-cid") as waiting:
                waiting.until("1 turn")
                program.config.write_text(program.config.read_text().replace(token_table("cid", "admin"), ""))
                program.signal(signal.SIGHUP)
                code, out = waiting.end()
                assert (code, json.loads(out)["error"]["close"]) == (77, 4501)


def test_without_a_gateway_it_says_so():
    url = f"ws://127.0.0.1:{free_port()}"
    code, out, err = ctl(None, "status", "--url", url)
    assert (code, out) == (69, "")
    assert "connect" in err
    code, answer = ctl_json(None, "restart", "--wait", "--url", url)
    assert (code, answer["error"]["reason"]) == (69, "unreachable")
    for url, said in (
        ("http://127.0.0.1", "ws://"),
        ("ws://a:0", "port"),
        ("ws://a..b:1", "1 to 63"),
        (b"ws://\xff:1", "1 to 63"),
    ):
        code, out, err = ctl(None, "status", "--url", url)
        assert (code, out) == (78, "")
        assert said in err


def test_the_wrong_path_is_told(program):
    code, out, err = ctl(program, "status", "--url", f"ws://127.0.0.1:{program.port}/chat")
    assert (code, out) == (69, "")
    assert "does not speak ACP over JSON-RPC" in err
    assert "/acp" in err


def test_the_config_says_where(program, tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text(f"[server]\nport = {program.port}\n")
    path.chmod(0o600)
    assert ctl(None, "status", "--config", str(path))[0] == 0
    path.write_text("[server]\nprot = 1\n")
    code, _, err = ctl(None, "status", "--config", str(path))
    assert code == 78
    assert "server.prot" in err
    path.write_text('[server]\nhost = "a..b"\n')
    code, _, err = ctl(None, "status", "--config", str(path))
    assert code == 78
    assert "server.host" in err


@pytest.mark.parametrize(
    "args", [[], ["exec"], ["kill"], ["status", "x"], ["drain", "--timeout", "0"], ["drain", "--nope"]]
)
def test_a_wrong_command_line_is_2(args):
    code, out, err = ctl(None, *args)
    assert code == 2 if args else code == 0, (out, err)


def test_what_reads_no_further_ends_it_quietly(program):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "gateway_trio", "ctl", "status"],
            env=environment(program), stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (141, "")


# --- waits ---


def test_a_drain_is_watched_to_the_end_of_its_last_turn(program, turn):
    with Ctl(program, "drain", "--wait", "--json") as waiting:
        waiting.until("draining (operator): 1 turn, 0 execs")
        turn()
        code, out = waiting.end()
        assert (code, json.loads(out)["outcome"]) == (0, "drained")
        assert json.loads(out)["seconds"] > 0
        assert "draining (operator): 0 turns" in waiting.lines[-1]
    assert status(program)["phase"] == "draining"


def test_undrain_from_elsewhere_ends_the_wait(program, turn):
    with Ctl(program, "drain", "--wait") as waiting:
        waiting.until("1 turn")
        assert ctl(program, "undrain")[:2] == (0, "open\n")
        code, out = waiting.end()
        assert (code, out) == (1, "")
        assert "taken back" in waiting.lines[-1]
    assert status(program)["turns"] == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_drain_as_it_is_and_says_so(program, turn, number, code):
    with Ctl(program, "drain", "--wait") as waiting:
        waiting.until("1 turn")
        waiting.interrupt(number)
        assert waiting.end() == (code, "")
        assert "stays as it is" in waiting.lines[-1]
    assert status(program)["reasons"] == ["operator"]


def test_the_time_is_over_and_the_drain_stays(program, turn):
    assert ctl(program, "drain")[0] == 0
    code, answer = ctl_json(program, "drain", "--wait", "--timeout", "0.5")
    assert (code, answer["error"]["reason"]) == (124, "timeout")
    assert status(program)["reasons"] == ["operator"]


def test_on_a_terminal_there_is_one_line_that_changes(program, turn):
    with OnTerminal(program, "drain", "--wait") as waiting:
        waiting.until("draining (operator): 1 turn")
        turn()
        waiting.until("drained: no turn runs any more")
        assert waiting.process.wait(60) == 0
        assert "\x1b[2K" in waiting.seen, "the line is written over"
        assert "\n" not in waiting.seen.partition("drained")[0].rpartition("1 turn")[0].strip()


def test_ctrl_c_on_a_terminal_leaves_the_wait(program, turn):
    with OnTerminal(program, "drain", "--wait") as waiting:
        waiting.until("draining (operator): 1 turn")
        waiting.process.send_signal(signal.SIGINT)
        waiting.until("stays as it is")
        assert waiting.process.wait(60) == 130
        assert waiting.seen.rstrip().endswith("`gateway-trio ctl undrain`")
        assert "\x1b[?25h" in waiting.seen, "the cursor is shown again"


def test_a_restart_is_waited_for_until_the_gateway_is_back(tmp_path):
    config = f"[server]\nport = {free_port()}\n{CONFIG}"
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    with Program(first, config) as program, Ctl(program, "restart", "--wait", "--json") as waiting:
        assert program.wait() == 75
        with Program(second, config) as again:
            code, out = waiting.end()
            answer = json.loads(out)
            assert (code, answer["outcome"]) == (0, "back"), waiting.lines
            assert answer["seconds"] > 0
            assert status(again)["started"] > 0


# --- from inside an exec ---


def inside(tmp_path, verbs, more=""):
    """A gateway whose commands run `ctl` against it: its address is given as a word."""
    env = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
    tables = []
    for name, (verb, token) in verbs.items():
        its = {**env, **({"GATEWAY_TRIO_TOKEN": token} if token else {})}
        pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in its.items())
        tables.append(f"""
[quick_commands.{name}]
type = "exec"
args = "text"
command = '{sys.executable} -m gateway_trio ctl {verb} --url "$1"'
env = {{{pairs}}}
""")
    return Program(tmp_path, CONFIG + "".join(tables) + more)


def ask_inside(program, name, token=None):
    url = f"ws://127.0.0.1:{program.port}"
    code, facts = ctl_json(program, "exec", name, url, token=token)
    assert facts["status"] == "exited", facts
    return code, facts["output"]


def test_an_exec_may_ask_its_own_gateway(tmp_path):
    verbs = {
        "see": ("status --json", None),
        "pause": ("drain by-itself", None),
        "pause-and-wait": ("drain --wait --json 2>/dev/null", None),
        "back-and-wait": ("restart --wait --json", None),
        "back": ("restart", None),
    }
    with inside(tmp_path, verbs) as program:
        code, output = ask_inside(program, "see")
        told = json.loads(output)
        assert (code, told["phase"], told["execs"]) == (0, "open", 1)
        assert [exec_["name"] for exec_ in told["running"]] == ["see"]
        code, output = ask_inside(program, "pause")
        assert (code, output[:8]) == (0, "draining")
        assert status(program)["asked"]["operator"]["why"] == "by-itself"
        code, output = ask_inside(program, "pause-and-wait")
        assert (code, json.loads(output)["outcome"]) == (0, "drained"), "an exec does not hold it"
        code, output = ask_inside(program, "back-and-wait")
        assert (code, json.loads(output)["error"]["reason"]) == (1, "own_exec")
        assert status(program)["reasons"] == ["operator"], "nothing was asked"
        assert ctl(program, "undrain")[0] == 0
        code, output = ask_inside(program, "back")
        assert (code, output[:20]) == (0, "The gateway restarts")
        assert program.wait() == 75
        assert program.report["execs_killed"] == 0, "the drain did not wait for the one who asked to its deadline"


def test_an_exec_has_no_token_unless_it_is_given_one(tmp_path):
    verbs = {
        "nobody": ("status --json", None),
        "user": ("drain --json", "token-of-bob"),
        "admin": ("drain --json", "token-of-ann"),
    }
    with inside(tmp_path, verbs, TOKENS) as program:
        code, output = ask_inside(program, "nobody", token="token-of-ann")
        assert (code, json.loads(output)["error"]["reason"]) == (77, "unauthorized")
        code, output = ask_inside(program, "user", token="token-of-ann")
        assert (code, json.loads(output)["error"]["reason"]) == (77, "forbidden")
        code, output = ask_inside(program, "admin", token="token-of-ann")
        assert (code, json.loads(output)["outcome"]) == (0, "draining")
        assert "token-of" not in program.text


def test_the_readme_of_exit_codes_has_them_all():
    from gateway_trio.core.exits import Exit

    page = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()
    for exit_ in Exit:
        assert f"\n| {exit_.value} |" in page.partition("## gateway-trio ctl")[2]
