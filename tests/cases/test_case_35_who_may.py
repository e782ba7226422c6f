"""Cases 35 and 38: a real gateway's audit and its doors.

Without tokens everyone on loopback is the one principal `local`, an admin; what a user may not do is in
`test_case_40_tokens`. Here it is seen that every road to a command leads through that decision: each is audited under
the name that really runs.
"""

import json

import pytest
from raw import Raw, request_head

from harness import Program, Refused, ours_of

CONFIG = """
[quick_commands.only-admins]
type = "exec"
command = "echo done"

[quick_commands.waits]
type = "exec"
command = "sleep 300"
timeout_seconds = 600

[quick_commands.short]
type = "alias"
target = "/only-admins"

[quick_commands.shorter]
type = "alias"
target = "/short"
"""

ROADS = ["/only-admins", "/ONLY-ADMINS", "/only_admins", "/Only_Admins", "/short", "/SHORTER"]


def audit(program):
    lines = [json.loads(line) for line in program.log if line.startswith("{")]
    return [line for line in lines if line["event"] in ("exec", "refused")]


def test_case_35_every_road_to_a_command_is_audited(tmp_path):
    with Program(tmp_path, CONFIG) as program, program.acp() as client:
        session = client.new_session()
        client.prompt(session, "/whoami")
        assert "local, role admin" in client.text()

        def ran(ask):
            before = len(audit(program))
            id_ = ask()
            program.wait_log(id_)
            line = audit(program)[before]
            assert (line["event"], line["command"], line["principal"]) == ("exec", "only-admins", "local")
            assert line["id"] == id_

        def by_prompt(road):
            return client.prompt(session, road)["_meta"]["gateway-trio"]["id"]

        def by_request(road):
            return client.call("_gateway-trio/exec", {"name": road[1:]})["id"]

        for road in ROADS:
            ran(lambda road=road: by_prompt(road))
            ran(lambda road=road: by_request(road))
        # In mid-turn.
        long = client.ask_prompt(session, "a " * 2000)
        client.until(lambda f: ours_of(f).get("turn", {}).get("state") == "running")
        for road in ROADS:
            ran(lambda road=road: by_prompt(road))
        client.notify("session/cancel", {"sessionId": session})
        assert client.answer(long)["stopReason"] == "cancelled"
        # While draining: by its own name, in any spelling; by another name it is refused, and that is noted.
        client.call("_gateway-trio/drain")
        for road in ROADS[:4]:
            ran(lambda road=road: by_prompt(road))
            ran(lambda road=road: by_request(road))
        for road in ROADS[4:]:
            for ask in (by_prompt, by_request):
                before = len(audit(program))
                with pytest.raises(Refused) as refusal:
                    ask(road)
                assert (refusal.value.reason, refusal.value.data["admitted"]) == ("draining", False)
                assert "/only-admins" in str(refusal.value)
                client.call("_gateway-trio/status")
                program.wait_log(f'"via": "{road[1:].lower()}"')
                line = audit(program)[before]
                assert (line["event"], line["command"], line["reason"]) == ("refused", "only-admins", "draining")


def test_case_35_kill_is_asked_for_like_everything(tmp_path):
    with Program(tmp_path, CONFIG) as program, program.acp() as first, program.acp() as second:
        session = first.new_session()
        waits = first.ask_prompt(session, "/waits")
        exec_id = ours_of(first.until_state("running"))["exec"]["id"]
        for kill in ("x", "", exec_id.upper(), exec_id + "0"):
            with pytest.raises(Refused):
                second.call("_gateway-trio/kill", {"id": kill})
        second.call("_gateway-trio/kill", {"id": exec_id})
        assert first.answer(waits)["_meta"]["gateway-trio"]["status"] == "killed"
        line = json.loads(program.wait_log('"status": "killed"'))
        assert (line["id"], line["status"]) == (exec_id, "killed")


EVIL = [
    "null",
    "https://evil.example",
    "http://evil.example",
    "https://localhost.evil.example",
    "http://localhost.evil.example:@PORT@",
    "http://127.0.0.1.evil.example:@PORT@",
    "http://evil.example:@PORT@",
    "http://127.0.0.1",  # another port is another origin
    "http://127.0.0.1:1",
    "http://localhost:1",
    "https://127.0.0.1:1",
    "http://127.0.0.2:@PORT@",
    "http://127.0.0.1:@PORT@@evil.example",
    "http://evil.example#127.0.0.1:@PORT@",
    "file://",
    "chrome-extension://abc",
    "http://allowed.example.evil.example",
    "http://allowed.example:80801",
    "*",
    "",
]
GOOD = ["http://127.0.0.1:@PORT@", "http://allowed.example"]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    config = '[server]\nport = 0\nallowed_origins = ["http://allowed.example"]\nhosts = ["gateway.example"]\n'
    with Program(tmp_path_factory.mktemp("gateway"), config) as program:
        yield program


def status(program, path="/acp", **headers):
    with Raw(program.port) as raw:
        raw.send(request_head(program.port, path, **headers))
        return raw.status()


@pytest.mark.parametrize("path", ["/acp", "/chat", "/livez"])
@pytest.mark.parametrize("origin", EVIL)
def test_case_38_a_web_page_gets_nowhere(program, path, origin):
    assert status(program, path, Origin=origin.replace("@PORT@", str(program.port))) == 403


@pytest.mark.parametrize("origin", GOOD)
def test_case_38_one_that_may(program, origin):
    origin = origin.replace("@PORT@", str(program.port))
    for path in ("/acp", "/chat"):
        assert status(program, path, Origin=origin) == 101
    assert status(program, "/livez", Origin=origin) == 200


def test_case_38_two_origins_are_none_that_may(program):
    with Raw(program.port) as raw:
        head = request_head(program.port, Origin=f"http://127.0.0.1:{program.port}")
        raw.send(head[:-2] + b"Origin: http://evil.example\r\n\r\n")
        assert raw.status() in (400, 403)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:@PORT@",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "10.0.0.1",
        "",
        "[::1",
        "a b",
    ],
)
@pytest.mark.parametrize("path", ["/acp", "/livez"])
def test_case_38_nor_by_another_name_of_this_machine(program, path, host):
    """DNS rebinding: the page's own name is made to mean 127.0.0.1, and then `Origin` and `Host` agree."""
    host = host.replace("@PORT@", str(program.port))
    assert status(program, path, Host=host, Origin=f"http://{host}") in (400, 403)
    assert status(program, path, Host=host) in (400, 403)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:@PORT@", "127.0.0.1", "[::1]:@PORT@", "LOCALHOST", "gateway.example"]
)
def test_case_38_names_that_it_has(program, host):
    assert status(program, Host=host.replace("@PORT@", str(program.port))) == 101
