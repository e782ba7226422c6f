"""Cases 35, 36, 37, 39 and 40, and 54 and 55 with tokens: a real gateway, and strangers at its doors.

`docs/security.md` lists what was tried; it is tried here.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import signal
import socket

import pytest
from processes import descriptors, wait_until
from raw import Raw, request_head

from harness import PATIENCE, Acp, Program, Refused, ours_of

TOKENS = {
    "root": "root-secret-0123456789abcdef",
    "ann": "ann-secret-0123456789abcdef",
    "bob": "bob-secret-0123456789abcde",
}
ENV = {"TOKEN_OF_BOB": TOKENS["bob"]}


def sha(token):
    return hashlib.sha256(token.encode()).hexdigest()


AUTH = f"""
[[auth.tokens]]
name = "root"
role = "admin"
sha256 = "{sha(TOKENS["root"])}"

[[auth.tokens]]
name = "ann"
role = "user"
sha256 = "{sha(TOKENS["ann"])}"

[[auth.tokens]]
name = "bob"
role = "user"
env = "TOKEN_OF_BOB"
"""

COMMANDS = """
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

[quick_commands.environment]
type = "exec"
command = "env; cat /proc/$PPID/environ | tr '\\\\0' '\\\\n'"
role = "user"
"""

CONFIG = AUTH + COMMANDS


def by(name):
    """Return what a client of this principal sends."""
    return {"additional_headers": {"Authorization": f"Bearer {TOKENS[name]}"}}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    with Program(tmp_path_factory.mktemp("gateway"), CONFIG, env=ENV) as program:
        yield program


def audit(program):
    lines = [json.loads(line) for line in program.log if line.startswith("{")]
    return [line for line in lines if line["event"] in ("exec", "refused") and "command" in line]


def status(port, path="/chat", **headers):
    with Raw(port) as raw:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            raw.send(request_head(port, path, **headers))
        return raw.status()


# --- 35 -------------------------------------------------------------------------------------------------

ROADS = ["/only-admins", "/ONLY-ADMINS", "/only_admins", "/Only_Admins", "/short", "/SHORT"]


def test_case_35_a_user_gets_to_no_command_of_an_admin(tmp_path):
    with (
        Program(tmp_path, CONFIG, env=ENV) as program,
        program.acp(**by("root")) as root,
        program.acp(**by("ann")) as ann,
    ):
        session = ann.new_session()

        def denied(ask, reasons=("forbidden",)):
            before = len(audit(program))
            with pytest.raises(Refused) as refusal:
                ask()
            assert refusal.value.reason in reasons
            assert refusal.value.data.get("admitted") is not True
            wait_until(lambda: len(audit(program)) > before)
            line = audit(program)[before]
            assert (line["event"], line["principal"]) == ("refused", "ann")
            assert line["command"] in ("only-admins", "drain", "undrain", "restart", "reload", "kill")

        def every_road():
            for road in ROADS:
                denied(lambda road=road: ann.prompt(session, road))
                denied(lambda road=road: ann.prompt(session, road, key="once"))
                denied(lambda road=road: ann.call("_gateway-trio/exec", {"name": road[1:]}))
            for built_in in ("/drain", "/undrain", "/restart", "/reload", "/RELOAD", "/ReStart"):
                denied(lambda built_in=built_in: ann.prompt(session, built_in))
            for method in ("drain", "undrain", "restart"):
                denied(lambda method=method: ann.call(f"_gateway-trio/{method}"))

        every_road()  # idle
        other = root.new_session()
        waits = root.ask_prompt(other, "/waits")
        exec_id = ours_of(root.until_state("running"))["exec"]["id"]
        denied(lambda: ann.call("_gateway-trio/kill", {"id": exec_id}))
        long = ann.ask_prompt(session, "a " * 2000)
        ann.until(lambda f: ours_of(f).get("turn", {}).get("state") == "running")
        every_road()  # busy
        root.call("_gateway-trio/drain")
        every_road()  # draining
        root.call("_gateway-trio/undrain")
        ann.notify("session/cancel", {"sessionId": session})
        ann.answer(long)
        ann.prompt(session, f"/kill {exec_id}")
        assert "is not yours" in ann.text()
        root.call("_gateway-trio/kill", {"id": exec_id})
        assert root.answer(waits)["_meta"]["gateway-trio"]["status"] == "killed"
        wait_until(
            lambda: any(line["event"] == "exec" for line in audit(program))
        )  # the pipe may be behind the socket
        ran = [line for line in audit(program) if line["event"] == "exec"]
        assert [line["principal"] for line in ran] == ["root"]
        told = len(ann.text())
        ann.prompt(session, "/commands")
        assert "/environment" in ann.text()[told:]
        assert not [word for word in ("only-admins", "short", "/drain", "/reload") if word in ann.text()[told:]]


# --- 36, 37 ---------------------------------------------------------------------------------------------


def test_case_36_a_session_of_somebody_else_is_no_session(program):
    with program.acp(**by("ann")) as ann, program.acp(**by("bob")) as bob:
        session = ann.new_session()
        long = ann.ask_prompt(session, "a " * 2000)
        ann.until(lambda f: ours_of(f).get("turn", {}).get("state") == "running")
        params = {"sessionId": session, "cwd": "/", "mcpServers": []}
        for method in ("session/load", "session/resume", "session/close"):
            with pytest.raises(Refused) as refusal:
                bob.call(method, params)
            assert (refusal.value.code, refusal.value.reason) == (-32002, "unknown_session")
        for text in ("hi", "/stop", "/history", "/interrupt me", "/environment"):
            with pytest.raises(Refused) as refusal:
                bob.prompt(session, text)
            assert refusal.value.reason == "unknown_session"
        bob.notify("session/cancel", {"sessionId": session})
        bob.notify("$/cancel_request", {"requestId": long})
        assert session not in str(bob.call("session/list"))
        own = bob.new_session()
        bob.prompt(own, "/stop")
        bob.prompt(own, "/ps")
        assert "nothing to stop" in bob.text()
        ann.notify("session/cancel", {"sessionId": session})
        assert ann.answer(long)["stopReason"] == "cancelled"
        states = [ours_of(f)["turn"]["state"] for f in ann.frames if "turn" in ours_of(f)]
        assert states == ["queued", "running", "cancelled"]


def test_case_37_a_role_that_a_client_declares_is_ignored(program):
    claim = {"role": "admin", "principal": "root", "name": "root", "user": "root", "token": TOKENS["ann"]}
    websocket = program.open("/acp?role=admin&principal=root", additional_headers={
        "Authorization": f"Bearer {TOKENS['ann']}", "X-Role": "admin", "X-Forwarded-User": "root", "Cookie": "role=admin",
        "X-Forwarded-For": "127.0.0.1",
    })  # fmt: skip
    with Acp(websocket) as client:
        client.call(
            "initialize",
            {
                "protocolVersion": 1,
                **claim,
                "clientInfo": {"name": "root", "version": "1"},
                "clientCapabilities": {**claim, "_meta": {"gateway-trio": claim}},
                "_meta": {"gateway-trio": claim},
            },
        )
        made = client.call(
            "session/new", {"cwd": "/", "mcpServers": [], **claim, "_meta": {"gateway-trio": claim}}
        )
        session = made["sessionId"]
        client.prompt(session, "/whoami", **claim)
        assert client.text().startswith("ann, role user")
        with pytest.raises(Refused) as refusal:
            client.prompt(session, "/only-admins", **claim)
        assert refusal.value.reason == "forbidden"
        with pytest.raises(Refused):
            client.call("_gateway-trio/drain", {"why": "x", **claim, "_meta": {"gateway-trio": claim}})


# --- 39 -------------------------------------------------------------------------------------------------


def test_case_39_off_loopback_it_starts_with_tokens(tmp_path):
    bound = '[server]\nport = 0\nhost = "0.0.0.0"\n'
    with Program(tmp_path, bound + CONFIG, env=ENV) as program:
        assert status(program.port) == 401
        with program.acp(**by("ann")) as ann:
            ann.new_session()
        # What holds now cannot be taken away in passing.
        program.config.write_text(bound + COMMANDS)
        program.signal(signal.SIGHUP)
        assert "auth.tokens" in program.wait_log('"not reloaded"')
        assert status(program.port) == 401
        program.signal()
        assert program.wait() == 0


@pytest.mark.parametrize("host", ["::", "0"])
def test_case_39_however_every_address_is_written(tmp_path, host):
    with Program(tmp_path, f'[server]\nport = 0\nhost = "{host}"\n' + CONFIG, env=ENV) as program:
        near = ("::1", "[::1]") if host == "::" else ("127.0.0.1", "127.0.0.1")
        with socket.create_connection((near[0], program.port), PATIENCE) as sock:
            sock.sendall(request_head(program.port, "/chat", Host=near[1]))
            assert sock.recv(100).startswith(b"HTTP/1.1 401 ")


# --- 40 -------------------------------------------------------------------------------------------------

BAD = {
    "none": None,
    "empty": "",
    "empty Bearer": "Bearer",
    "blank Bearer": "Bearer  ",
    "é": "Bearer é".encode(),
    "latin é": b"Bearer \xe9",
    "a byte": b"Bearer \xff",
    "wrong": "Bearer wrong",
    "right and more": f"Bearer {TOKENS['ann']}x",
    "less": f"Bearer {TOKENS['ann'][:-1]}",
    "upper case": f"Bearer {TOKENS['ann'].upper()}",
    "its digest": f"Bearer {sha(TOKENS['ann'])}",
    "the variable's name": "Bearer TOKEN_OF_BOB",
    "a name": "Bearer ann",
    "Basic": f"Basic {TOKENS['ann']}",
    "no scheme": TOKENS["ann"],
    "two": f"Bearer {TOKENS['ann']}, Bearer {TOKENS['ann']}",
    "quoted": f'Bearer "{TOKENS["ann"]}"',
    "15 KB": "Bearer " + "x" * 15_000,
    "100 KB": "Bearer " + "x" * 100_000,
    "1 MB": "Bearer " + "x" * 1_000_000,
    "1 MB of é": b"Bearer " + "é".encode() * 500_000,
}


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A gateway that takes as many bad tokens as there are here."""
    config = "[auth]\nfailures = 1000\n" + CONFIG
    with Program(tmp_path_factory.mktemp("gateway"), config, env=ENV) as program:
        yield program


@pytest.mark.parametrize("name", BAD)
def test_case_40_what_is_no_token_is_401(patient, name):
    headers = {} if BAD[name] is None else {"Authorization": BAD[name]}
    with Raw(patient.port) as raw:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            raw.send(request_head(patient.port, "/chat", **headers))
        head = raw.head()
    assert head.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nWWW-Authenticate: Bearer" in head
    if BAD[name] is not None:  # without one, `/acp` lets one authenticate on the connection
        assert status(patient.port, "/acp", **headers) == 401
    assert "Traceback" not in patient.text
    assert "a connection failed" not in patient.text


def test_case_40_two_headers_are_none(patient):
    with Raw(patient.port) as raw:
        head = request_head(patient.port, "/chat", Authorization=f"Bearer {TOKENS['ann']}")
        raw.send(head[:-2] + f"Authorization: Bearer {TOKENS['root']}\r\n\r\n".encode())
        assert raw.status() == 401


@pytest.mark.parametrize("query", ["token=@", "access_token=@", "authorization=Bearer%20@", "session=@"])
def test_case_40_a_token_in_a_url_is_none(patient, query):
    assert status(patient.port, "/chat?" + query.replace("@", TOKENS["ann"])) == 401
    assert TOKENS["ann"] not in patient.text


def test_case_40_a_thousand_bad_ones_are_limited_and_the_good_one_enters(tmp_path):
    with Program(tmp_path, CONFIG, env=ENV) as program:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda n: status(program.port, Authorization=f"Bearer bad-{n}"), range(1000)))
        assert set(found) == {401, 429}
        assert found.count(401) < 30, "ten, and those that come back while a thousand are sent"
        with Raw(program.port) as raw:
            raw.send(request_head(program.port, "/acp", Authorization="Bearer x"))
            head = raw.head()
        assert head.startswith(b"HTTP/1.1 429 ")
        assert int(head.partition(b"Retry-After: ")[2].split(b"\r\n")[0]) > 0
        with program.acp(**by("ann")) as ann, program.chat(**by("bob")) as bob:
            ann.new_session()
            assert bob.ask("/whoami").startswith("bob")
        assert program.text.count('"bad token"') == found.count(401), "and the log does not grow with them"
        assert "bad-" not in program.text


# --- 54, 55 ---------------------------------------------------------------------------------------------

DEADLY = {
    "Host": {"Host": b"\xff"},
    "punycode": {"Host": b"xn--a-ecp.ru"},
    "Connection": {"Connection": b"Upgrade, \xff"},
    "Protocol": {"Sec_WebSocket_Protocol": b"\xff"},
    "Extensions": {"Sec_WebSocket_Extensions": b"permessage-deflate; \xff"},
}


@pytest.mark.parametrize("token", [None, "x", TOKENS["ann"]])
@pytest.mark.parametrize("name", DEADLY)
def test_case_54_what_ends_others_is_refused_with_any_token(patient, name, token):
    headers = DEADLY[name] if token is None else {**DEADLY[name], "Authorization": f"Bearer {token}"}
    for path in ("/acp", "/chat"):
        assert status(patient.port, path, **headers) in (400, 403)
    with patient.chat(**by("bob")) as bystander:
        assert bystander.ask("/whoami").startswith("bob")
    assert "a connection failed" not in patient.text


def test_case_55_strangers_leave_nothing_behind(tmp_path):
    with Program(tmp_path, CONFIG, env=ENV) as program:
        with program.chat(**by("ann")) as bystander:
            before = descriptors(program.pid)
            crowd = [Raw(program.port) for _ in range(200)]
            for number, raw in enumerate(crowd):
                head = request_head(program.port, "/acp")
                raw.send(head[: len(head) // 2] if number % 2 else head)
            statuses = [raw.status() for raw in crowd[::2]]
            assert statuses.count(101) == 64
            assert statuses.count(503) == 36
            assert bystander.ask("/whoami").startswith("ann")
            codes = [raw.close_code() for raw, got in zip(crowd[::2], statuses, strict=True) if got == 101]
            assert codes == [1008] * 64
            for raw in crowd:
                raw.hang_up()
            wait_until(lambda: descriptors(program.pid) <= before)
            assert bystander.ask("still here") == "still here"
        assert "Traceback" not in program.text


def test_a_strangers_words_fill_no_log(tmp_path):
    with Program(tmp_path, CONFIG, env=ENV) as program:
        assert status(program.port, Host="x" * 15_000) == 403
        assert status(program.port, Origin="http://" + "y" * 15_000) == 403
        assert status(program.port, "/" + "z" * 15_000) == 404
        client = program.acp()
        with pytest.raises(Refused):
            client.call("m" * 15_000)
        with pytest.raises(Refused):
            client.call("authenticate", {"methodId": "t" * 15_000})
        client.close()
        program.signal()
        assert program.wait() == 0
        assert max(map(len, program.log)) < 2000


# --- the pages ------------------------------------------------------------------------------------------


def test_the_pages_tell_a_stranger_nothing_of_anybody(program):
    with program.acp(**by("root")) as root:
        root.call("_gateway-trio/drain", {"why": "the secret plan"})
        code, body = program.get("/livez")
        told = json.loads(body)
        assert (code, told["phase"], told["reasons"]) == (200, "draining", ["operator"])
        assert program.get("/readyz")[0] == 503
        assert "secret plan" not in body
        assert "root" not in body
        assert "secret plan" in program.get("/livez", {"Authorization": f"Bearer {TOKENS['ann']}"})[1]
        assert program.get("/livez", {"Authorization": "Bearer x"})[0] == 401
        root.call("_gateway-trio/undrain")


# --- secrets --------------------------------------------------------------------------------------------


def test_no_exec_shows_a_token_and_no_log_holds_one(tmp_path):
    with Program(tmp_path, CONFIG, env=ENV) as program:
        with program.acp(**by("ann")) as ann:
            session = ann.new_session()
            ann.prompt(session, "/environment")
            assert "PATH=" in ann.text()
            assert "TOKEN_OF_BOB=***" in ann.text(), "it looked into the gateway's own environment"
            assert TOKENS["bob"] not in ann.text()
            ann.prompt(session, f"my token is {TOKENS['ann']}")
            with pytest.raises(Refused):
                ann.call(
                    "authenticate", {"methodId": "token", "_meta": {"gateway-trio": {"token": TOKENS["root"]}}}
                )
        for authorization in (f"Bearer {TOKENS['ann']}x", f"Basic {TOKENS['ann']}", f"Bearer é{TOKENS['ann']}"):
            status(program.port, Authorization=authorization.encode())
        late = program.acp()
        with pytest.raises(Refused) as refusal:
            late.call(
                "authenticate", {"methodId": "token", "_meta": {"gateway-trio": {"token": "x" + TOKENS["bob"]}}}
            )
        assert refusal.value.reason == "auth_required"
        late.call("authenticate", {"methodId": "token", "_meta": {"gateway-trio": {"token": TOKENS["bob"]}}})
        late.prompt(late.new_session(), "/whoami")
        assert late.text().startswith("bob")
        late.close()
        program.config.write_text(CONFIG.replace('role = "user"', 'role = "nobody"'))
        program.signal(signal.SIGHUP)
        program.wait_log('"not reloaded"')
        program.signal()
        assert program.wait() == 0
        for secret in (*TOKENS.values(), *map(sha, TOKENS.values())):
            assert secret not in program.text
            assert secret not in program.report_path.read_text()
        executed = next(line for line in audit(program) if line["event"] == "exec")
        assert executed["principal"] == "ann"


# --- SIGHUP ---------------------------------------------------------------------------------------------


def test_a_sighup_before_the_gateway_stands_ends_nothing(tmp_path):
    script = tmp_path / "early.py"
    script.write_text(
        "import os, signal, sys, pathlib\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGTERM})\n"
        "os.kill(os.getpid(), signal.SIGHUP)\n"
        "from gateway_trio.process import run\n"
        "sys.exit(run(pathlib.Path(sys.argv[3]), None))\n"
    )
    with Program(tmp_path, CONFIG, env=ENV, script=script) as program:
        assert '"by": "SIGHUP"' in program.wait_log('"reloaded"')
        program.signal()
        assert program.wait() == 0


def test_sighup_reads_the_config_again_and_a_bad_one_changes_nothing(tmp_path):
    with (
        Program(tmp_path, CONFIG, env=ENV) as program,
        program.acp(**by("root")) as root,
        program.acp(**by("ann")) as ann,
    ):
        session = root.new_session()
        ann.new_session()
        program.config.write_text(CONFIG + "[quick_command.x]\n[server]\nport = 'x'\n")
        program.signal(signal.SIGHUP)
        line = program.wait_log('"not reloaded"')
        assert "quick_command" in line
        assert "server.port" in line
        root.prompt(session, "/only-admins")
        assert "done" in root.text()
        program.config.write_text(
            CONFIG.replace(sha(TOKENS["ann"]), sha("another")).replace(
                "[quick_commands.short]", "[quick_commands.longer]"
            )
        )
        program.signal(signal.SIGHUP)
        told = root.until(
            lambda f: "longer" in str(f.get("params", {}).get("update", {}).get("availableCommands"))
        )
        assert "'short'" not in str(told)
        assert ann.code == 4501
        assert status(program.port, Authorization=f"Bearer {TOKENS['ann']}") == 401
        root.prompt(session, "/longer")
        root.prompt(session, "/reload")
        assert "Reloaded." in root.text()
        program.config.write_text("port = [\n\n=")
        with pytest.raises(Refused) as refusal:
            root.prompt(session, "/reload")
        assert refusal.value.reason == "conflict"
        assert "line 3" in str(refusal.value)
        program.signal()
        assert program.wait(PATIENCE) == 0
