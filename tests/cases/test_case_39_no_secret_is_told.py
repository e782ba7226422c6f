"""Case 39 and its kind: no secret in the log, the metrics, the pages or the report, whichever way it came."""

import base64
import contextlib
import hashlib
import signal

import pytest
from raw import Raw, request_head

from harness import Program, Refused
from model_server import ModelServer, fault

TOKENS = {
    "root": "root-token-Zq3xW8vK1mB7nH2p",
    "bob": "bob-token-J5tR9yL4cF6dS0aG",
    "stranger": "nobodys-token-U8iO3pA6sD1fG",
}
KEY = "sk-model-key-M2nB5vC8xZ1lK4jH"
PASSWORD = "exec-password-Q7wE2rT9yU"
SECRETS = {**TOKENS, "key": KEY, "password": PASSWORD}
ENV = {"TOKEN_OF_BOB": TOKENS["bob"], "MODEL_KEY": KEY, "DB_PASSWORD": PASSWORD}


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def config(port):
    return f"""
[server]
port = 0

[agent]
type = "openai"
base_url = "http://127.0.0.1:{port}/v1"
model = "m"
api_key_env = "MODEL_KEY"
max_retries = 0

[[auth.tokens]]
name = "root"
role = "admin"
sha256 = "{sha(TOKENS["root"])}"

[[auth.tokens]]
name = "bob"
role = "user"
env = "TOKEN_OF_BOB"

[quick_commands.environment]
type = "exec"
command = "echo \\"$DB_PASSWORD\\"; env; cat /proc/$PPID/environ | tr '\\\\0' '\\\\n'; echo \\"$1\\" >&2; exit 3"
args = "text"

[quick_commands.lost]
type = "exec"
argv = ["/no/such/program"]
env = {{ DB_PASSWORD = "x" }}
"""


def forms(secret):
    """What a secret may look like."""
    return {
        "as it is": secret,
        "its digest": sha(secret),
        "base64": base64.b64encode(secret.encode()).decode().rstrip("="),
        "hex": secret.encode().hex(),
    }


def by(name):
    return {"additional_headers": {"Authorization": f"Bearer {TOKENS[name]}"}}


def knock(port, path, **headers):
    with Raw(port) as raw:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            raw.send(request_head(port, path, **headers))
        return raw.status()


def at_the_doors(program):
    """Every place of a request in which somebody may put a token."""
    for token in TOKENS.values():
        for path in ("/acp", "/chat", "/metrics", "/livez", "/no"):
            knock(program.port, f"{path}?token={token}&session={token}", Authorization=f"Bearer {token}x")
            knock(program.port, path, Authorization=f"Basic {token}", Cookie=f"token={token}", X_Token=token)
            knock(
                program.port,
                path,
                Sec_WebSocket_Protocol=token,
                Sec_WebSocket_Key=token,
                Referer=f"http://x/{token}",
            )
        knock(program.port, f"/{token}")


def on_a_connection(program):
    """Tokens that are no one's and tokens that are good, by ACP; then prompts that the model refuses with its key."""
    for token in (TOKENS["stranger"], TOKENS["root"] + "x", TOKENS["bob"]):
        with program.acp() as client, contextlib.suppress(Refused):
            params = {"methodId": "token", "_meta": {"gateway-trio": {"token": token}}}
            client.call("authenticate", params)
            client.call("session/new", {"cwd": "/", "mcpServers": []})


@pytest.fixture
def model():
    with ModelServer() as model:
        model.replies["repeat"] = [fault("401 Unauthorized", f"Incorrect API key provided: {KEY}")]
        model.replies["down"] = [fault("503 Service Unavailable", f"no room for {KEY}")]
        yield model


def test_case_39_no_secret_is_told_whichever_way_it_came(tmp_path, model):
    pages = []
    with Program(tmp_path, config(model.port), env=ENV) as program:
        good = program.config.read_text()

        def look():
            for headers in ({}, {"Authorization": f"Bearer {TOKENS['root']}"}):
                pages.extend(program.get(path, headers)[1] for path in ("/metrics", "/livez", "/readyz"))

        at_the_doors(program)
        on_a_connection(program)
        with program.acp(**by("root")) as root, program.chat(**by("bob")) as bob:
            session = root.new_session()
            for text in ("repeat", "down"):
                with pytest.raises(Refused):
                    root.prompt(session, text)
            bob.send("repeat")
            bob.until("· failed")
            root.prompt(session, f"/environment {PASSWORD} {KEY} {TOKENS['bob']}")
            shown = root.text()
            assert "MODEL_KEY=***" in shown
            root.prompt(session, "/lost")
            look()
            for broken in (
                good.replace(f'sha256 = "{sha(TOKENS["root"])}"', f'sha256 = "{TOKENS["root"]}"'),
                good.replace('env = "TOKEN_OF_BOB"', f'env = "{TOKENS["bob"]}"'),
                good.replace('env = "TOKEN_OF_BOB"', f'token = "{TOKENS["bob"]}"'),
                good.replace('"MODEL_KEY"', f'"{KEY}"'),
                good + f'\npassword = "{PASSWORD}\n',
            ):
                assert broken != good
                program.config.write_text(broken)
                with pytest.raises(Refused) as refusal:
                    root.prompt(session, "/reload")
                pages.append(str(refusal.value))
            program.config.write_text(good)
            root.prompt(session, "/reload")
            program.signal(signal.SIGHUP)
            with pytest.raises(Refused):
                root.prompt(session, "down")
            look()
            program.signal()
            assert root.code == 1012
        assert program.wait() == 0
        pages.append(program.report_path.read_text())
        told = {"the log": program.text, "a page": "".join(pages), "an exec": shown}
        # The digest of a token that the config has as one is no secret of its environment: nobody prints the config.
        found = [
            (what, name, form)
            for what, text in told.items()
            for name, secret in SECRETS.items()
            for form, shape in forms(secret).items()
            if shape.lower() in text.lower()
        ]
        assert found == []
        for event in ('"bad token"', '"not reloaded"', '"model failed"', '"exec"', '"drained"'):
            assert event in program.text, "each of these ways was gone"
