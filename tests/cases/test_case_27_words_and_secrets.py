"""Cases 27 to 29: what a user types reaches a command as arguments alone, and what the gateway knows stays in it."""

import json
import shlex

import pytest

from harness import Program, Refused

SHOW = """'for word in "$@"; do printf "<%s>" "$word"; done'"""

CONFIG = f"""
[quick_commands.text]
type = "exec"
command = {SHOW}
args = "text"

[quick_commands.words]
type = "exec"
command = {SHOW}
args = "words"

[quick_commands.argv]
type = "exec"
argv = ["printf", "<%s>"]
args = "words"

[quick_commands.none]
type = "exec"
command = {SHOW}

[quick_commands.aliased]
type = "alias"
target = "/words 'first word'"

[quick_commands.env]
type = "exec"
argv = ["env"]

[quick_commands.env-more]
type = "exec"
argv = ["env"]
env = {{ PLANT = "fern" }}

[quick_commands.uses]
type = "exec"
command = 'echo "$API_TOKEN"'

[quick_commands.whole]
type = "exec"
command = "cat secret"
cwd = "@HERE@"

[quick_commands.split]
type = "exec"
command = "for n in 1 5 9 13 17; do tail -c +$n secret | head -c 4; sleep 0.1; done; echo; echo end"
cwd = "@HERE@"

[quick_commands.to-stderr]
type = "exec"
command = "echo before; cat secret >&2; head -c 9 secret; cat secret secret"
cwd = "@HERE@"
"""

SECRET = "hunter2-hunter2-hunt"

HOSTILE = [
    "; touch CANARY",
    "$(touch CANARY)",
    "`touch CANARY`",
    "&& touch CANARY",
    "| touch CANARY",
    "> CANARY",
    "'; touch CANARY; '",
    '"; touch CANARY; "',
    "a b  c",
    '"c d',
    "*",
    "~",
    "$HOME ${HOME}",
    "-n",
    "--",
    "-c touch",
    "%s%n%d",
    "\\n\\",
    "!!",
    "{a,b}",
    "a\nb",
    "\ttab",
    " blank ",
    "é𝄞",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "secret").write_text(SECRET)
    return home


@pytest.fixture(scope="module")
def program(home, tmp_path_factory):
    env = {
        "API_TOKEN": SECRET,
        "OPENAI_API_KEY": "sk-live",
        "GATEWAY_TRIO_TOKEN": "tok",
        "HOME": str(home),
        "AWS_X": "y",
    }
    config = CONFIG.replace("@HERE@", str(home))
    with Program(tmp_path_factory.mktemp("gateway"), config, env=env) as program:
        yield program


@pytest.fixture
def client(program):
    with program.acp() as client:
        yield client


def run(client, name, *args):
    answer = client.call("_gateway-trio/exec", {"name": name, "args": list(args)})
    assert answer["status"] == "exited"
    return answer["output"]


def said(client, prompt):
    client.frames.clear()
    client.prompt(client.new_session(), prompt)
    return client.text()


def shown(*words):
    return "".join(f"<{word}>" for word in words)


def test_case_27_a_list_of_words_arrives_as_it_is(client, home):
    for name in ("words", "argv"):
        assert run(client, name, *HOSTILE, "") == shown(*HOSTILE, "")
        for word in [*HOSTILE, ""]:
            assert run(client, name, word) == shown(word)
    assert run(client, "aliased", "$(id)", "") == shown("first word", "$(id)", "")
    for word in [*HOSTILE, ""]:
        assert run(client, "text", word) == shown(word)
    assert not (home / "CANARY").exists()


def test_case_27_words_are_split_as_a_shell_would_and_not_expanded(client, home):
    assert said(client, f"/words {shlex.join(HOSTILE)}") == shown(*HOSTILE)
    assert said(client, f"/argv {shlex.join(HOSTILE)}") == shown(*HOSTILE)
    assert said(client, "/words a  b\n'' \"c d\" e\\ f $(id) `id` *") == shown(
        "a", "b", "", "c d", "e f", "$(id)", "`id`", "*"
    )
    assert said(client, "/aliased x 'y z'") == shown("first word", "x", "y z")
    assert not (home / "CANARY").exists()


def test_case_27_text_is_one_argument_as_it_is(client, home):
    for text in [*HOSTILE, 'a "b c" \'d', "a\\ b", "  two blanks before"]:
        assert said(client, f"/text {text}") == shown(text)
    assert said(client, "/text") == "[no output]"
    assert not (home / "CANARY").exists()


def test_case_27_words_where_none_are_taken(client):
    session = client.new_session()
    for method, params in [
        *(
            ("session/prompt", prompt)
            for prompt in ("/none x", "/none ; id", "/words 'open", '/words "open', "/words \\")
        ),
        ("_gateway-trio/exec", {"name": "none", "args": ["x"]}),
        ("_gateway-trio/exec", {"name": "none", "args": [""]}),
        ("_gateway-trio/exec", {"name": "text", "args": ["x", "y"]}),
        ("_gateway-trio/exec", {"name": "words", "args": ["a\0b"]}),
        ("_gateway-trio/exec", {"name": "words", "args": ["x" * 4097]}),
        ("_gateway-trio/exec", {"name": "words", "args": ["x"] * 33}),
    ]:
        with pytest.raises(Refused) as refusal:
            if method == "session/prompt":
                client.prompt(session, params)
            else:
                client.call(method, params)
        assert (refusal.value.code, refusal.value.reason) == (-32602, "usage")
        assert refusal.value.data["admitted"] is False
        assert "Usage: /" in str(refusal.value)
    assert said(client, "/none  ") == "[no output]"


def test_case_27_a_refusal_is_audited(program, client):
    with pytest.raises(Refused):
        client.call("_gateway-trio/exec", {"name": "none", "args": ["audited"]})
    line = json.loads(program.wait_log('"reason": "usage"'))
    assert (line["event"], line["principal"]) == ("refused", "local")


def test_case_28_the_environment_is_an_allow_list(client):
    allowed = {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "SHELL", "TERM", "GATEWAY_TRIO_EXEC_ID"}
    for name, more in (("env", set()), ("env-more", {"PLANT"})):
        output = run(client, name)
        names = {line.partition("=")[0] for line in output.splitlines()}
        assert {"PATH", "HOME", "GATEWAY_TRIO_EXEC_ID"} | more <= names <= allowed | more
        for value in (SECRET, "sk-live", "=tok", "=y"):
            assert value not in output


def test_case_29_a_secret_that_came_from_a_file_is_not_shown(client):
    assert run(client, "uses") == "\n"  # it is not in the environment to begin with
    for show in (run, lambda client, name: said(client, f"/{name}")):
        assert show(client, "whole") == "***"
        assert show(client, "split") == "***\nend\n"
        assert show(client, "to-stderr") == f"before\n***{SECRET[:9]}******"


def test_case_29_also_on_chat(program):
    with program.chat() as chat:
        assert chat.ask("/split") == "***\nend\n"
