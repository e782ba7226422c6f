"""Tokens: how the config names them, what is wrong with them, and that they are compared as digests."""

import hashlib

import pytest

from gateway_trio.config import AuthConfig, Config, ConfigError, TokenConfig, parse_config, secrets
from gateway_trio.core.kinds import Role
from gateway_trio.tokens import LOCAL, TOKEN_CHARS, Identity, Principal, Tokens, bearer

ENV = {"ALICE": "alice-token-0123456789", "BOB": "bob-token-0123456789", "EMPTY": "", "LINE": "token\n"}


def sha(token):
    return hashlib.sha256(token.encode()).hexdigest()


def table(*lines):
    return "[[auth.tokens]]\n" + "\n".join(lines) + "\n"


def faults(text, environ=None):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, environ=ENV if environ is None else environ)
    return {fault.path: fault.message for fault in caught.value.faults}


def test_a_token_is_known_by_its_digest_or_by_the_environment():
    auth = AuthConfig(
        (TokenConfig("a", Role.ADMIN, env="ALICE"), TokenConfig("b", Role.USER, sha256=sha("s").upper()))
    )
    tokens = Tokens.resolve(auth, ENV)
    assert tokens
    assert tokens.find(ENV["ALICE"]).principal == Principal("a", Role.ADMIN)
    assert tokens.find("s").principal == Principal("b", Role.USER)
    for other in ("", "S", "s ", ENV["BOB"], sha("s"), "ALICE", "é", "\ud800", "x" * 1_000_000):
        assert tokens.find(other) is None
    assert ENV["ALICE"] not in repr(tokens) + repr(tokens.find("s"))


def test_without_tokens_everyone_is_local_and_no_token_is_anybodys():
    tokens = Tokens.resolve(AuthConfig(), {})
    assert not tokens
    assert tokens.find("") is None
    assert tokens.holds(Identity(LOCAL))
    assert not Tokens.resolve(AuthConfig((TokenConfig("a", Role.ADMIN, env="ALICE"),)), ENV).holds(Identity(LOCAL))


def test_an_identity_holds_as_long_as_its_token_says_the_same():
    def tokens(*configs):
        return Tokens.resolve(AuthConfig(configs), ENV)

    alice = tokens(TokenConfig("a", Role.ADMIN, env="ALICE"), TokenConfig("b", Role.USER, env="BOB")).find(
        ENV["ALICE"]
    )
    assert tokens(TokenConfig("a", Role.ADMIN, sha256=sha(ENV["ALICE"]))).holds(alice)
    assert not tokens(TokenConfig("a", Role.USER, env="ALICE")).holds(alice)
    assert not tokens(TokenConfig("c", Role.ADMIN, env="ALICE")).holds(alice)
    assert not tokens(TokenConfig("a", Role.ADMIN, env="BOB")).holds(alice)
    assert not tokens().holds(alice)


@pytest.mark.parametrize(
    ("lines", "path", "part"),
    [
        (['name = "a"', 'role = "user"'], "auth.tokens[0]", "has neither"),
        (['name = "a"', 'role = "user"', f'sha256 = "{sha("x")}"', 'env = "BOB"'], "auth.tokens[0]", "not both"),
        (['name = "a"', 'role = "user"', 'sha256 = "abc"'], "auth.tokens[0].sha256", "64 hexadecimal"),
        (['name = "a"', 'role = "user"', f'sha256 = "{"g" * 64}"'], "auth.tokens[0].sha256", "64 hexadecimal"),
        (['name = "a"', 'role = "user"', f'sha256 = "{sha("")}"'], "auth.tokens[0].sha256", "empty"),
        (['name = "a"', 'role = "user"', "sha256 = 12"], "auth.tokens[0].sha256", "must be"),
        (['name = "a"', 'role = "user"', 'env = "A B"'], "auth.tokens[0].env", "environment variable"),
        (['name = "a"', 'role = "user"', 'env = "NONE"'], "auth.tokens[0].env", "not set"),
        (['name = "a"', 'role = "user"', 'env = "EMPTY"'], "auth.tokens[0].env", "empty"),
        (['name = "a"', 'role = "user"', 'env = "LINE"'], "auth.tokens[0].env", "line end"),
        (['name = "a"', 'role = "root"', 'env = "BOB"'], "auth.tokens[0].role", '"user" or "admin"'),
        (['name = "a"', 'env = "BOB"'], "auth.tokens[0].role", "required"),
        (['role = "user"', 'env = "BOB"'], "auth.tokens[0].name", "required"),
        (['name = ""', 'role = "user"', 'env = "BOB"'], "auth.tokens[0].name", "must be"),
        (['name = "a\\nb"', 'role = "user"', 'env = "BOB"'], "auth.tokens[0].name", "must be"),
        (['name = "local"', 'role = "user"', 'env = "BOB"'], "auth.tokens[0].name", "everyone"),
        (['name = "a"', 'role = "user"', 'evn = "BOB"'], "auth.tokens[0].evn", 'did you mean "env"'),
    ],
)  # fmt: skip
def test_each_fault_is_told_with_its_path(lines, path, part):
    assert part in faults(table(*lines))[path]


def test_faults_between_tokens_are_told_all_at_once():
    found = faults(
        table('name = "a"', 'role = "user"', 'env = "BOB"')
        + table('name = "a"', 'role = "admin"', f'sha256 = "{sha("x")}"')
        + table('name = "c"', 'role = "admin"', f'sha256 = "{sha(ENV["BOB"])}"')
        + table('name = "d"', 'role = "admin"', 'env = "NONE"')
    )
    assert set(found) == {"auth.tokens[1].name", "auth.tokens[2]", "auth.tokens[3].env"}
    assert "auth.tokens[0]" in found["auth.tokens[1].name"]
    assert "auth.tokens[0]" in found["auth.tokens[2]"]


@pytest.mark.parametrize("value", ["x" * (TOKEN_CHARS + 1), "two words", "é" * 10, " padded", "tab\t"])
def test_a_value_that_no_header_carries_is_no_token_and_is_not_repeated(value):
    found = faults(table('name = "a"', 'role = "user"', 'env = "BOB"'), {"BOB": value})
    assert "printable ASCII" in found["auth.tokens[0].env"]
    assert value not in found["auth.tokens[0].env"]


@pytest.mark.parametrize(
    "wrong", ["tokens = 3", "tokens = [3]", 'tokens = ["secret-in-the-wrong-place"]', "tokens = {}"]
)
def test_what_is_no_list_of_tables_is_told_and_not_repeated(wrong):
    found = faults(f"[auth]\n{wrong}\n")
    assert all(path.startswith("auth.tokens") for path in found)
    assert "secret" not in str(found)


def test_a_program_that_builds_its_config_gets_the_same_faults():
    with pytest.raises(ValueError, match="neither"):
        TokenConfig("a", Role.USER)
    with pytest.raises(ConfigError, match="not set"):
        Tokens.resolve(AuthConfig((TokenConfig("a", Role.USER, env="NONE"),)), ENV)


def test_the_names_of_tokens_are_secret_whatever_they_are():
    config = Config(
        auth=AuthConfig((TokenConfig("a", Role.USER, env="ALICE"), TokenConfig("b", Role.USER, env="SHELL")))
    )
    assert config.secret_names == ("ALICE", "SHELL")
    assert secrets(config, ENV)[0] == (ENV["ALICE"],)
    assert secrets(Config(), ENV, (ENV["ALICE"],))[0] == (ENV["ALICE"],), "what was one stays one"


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"), ("bearer abc", "abc"), ("BEARER   a.b~c+/==  ", "a.b~c+/=="),
        ("Bearer", None), ("Bearer ", None), ("", None), ("Basic abc", None), ("abc", None), ("Bearerabc", None),
        ("Bearer a b", None), ("Bearer a, Bearer b", None), ("Bearer\tabc", None), ("Token abc", None),
    ],
)  # fmt: skip
def test_the_header_holds_one_token_or_none(header, token):
    assert bearer(header) == token
