import os
import stat
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_trio.config import (
    AliasCommand,
    AuthConfig,
    BreakerConfig,
    Config,
    ConfigError,
    DrainConfig,
    EchoAgentConfig,
    ExecCommand,
    ExecConfig,
    OpenAIAgentConfig,
    ServerConfig,
    SessionConfig,
    StoreConfig,
    is_loopback,
    load_config,
    parse_config,
    secrets,
)
from gateway_trio.core.commands import CatalogFaults, Role

EXAMPLE = Path(__file__).parent.parent / "examples" / "gateway.toml"


def faults(text):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, environ={})
    assert str(caught.value) == "\n".join(f"{fault.path}: {fault.message}" for fault in caught.value.faults)
    assert len(str(caught.value).splitlines()) == len(caught.value.faults)
    return {fault.path: fault.message for fault in caught.value.faults}


# --- what is good -----------------------------------------------------------------------------------


def test_an_empty_text_is_every_default():
    assert (
        parse_config("", environ={})
        == Config()
        == Config(
            ServerConfig("127.0.0.1", 8765, (), (), 1000, 1_048_576, 20),
            EchoAgentConfig("echo", 50),
            SessionConfig("queue", 32, 600, 3600, 600, 8_388_608),
            ExecConfig(8, 32, 2),
            DrainConfig(20, 5, 25, 3, 60),
            BreakerConfig(5, 60, 5),
            AuthConfig((), 64, 10, 60, 120, 1000, 100),
            StoreConfig("sqlite", None, 90, 200_000),
            {},
        )
    )


def test_everything_that_is_written_is_read():
    config = parse_config(
        """
        [server]
        host = "::1"
        port = 0
        hosts = ["gw.example"]
        allowed_origins = ["https://a.example", "http://b.example:8080"]
        [agent]
        type = "echo"
        words_per_second = 2
        [session]
        busy = "refuse"
        queue_limit = 0
        turn_seconds = 0.5
        [breaker]
        failures = 1
        probe_seconds = 0.5
        [store]
        path = "~/state/x.db"
        keep_days = 1
        [quick_commands.my_gpu]
        type = "exec"
        argv = ["nvidia-smi", ""]
        role = "user"
        args = "words"
        timeout_seconds = 1.5
        background = "kill"
        env = { LC_ALL = "C" }
        cwd = "/tmp"
        [quick_commands.g]
        type = "alias"
        target = "/my-gpu -q"
        role = "admin"
        """,
        environ={},
    )
    gpu = ExecCommand(
        "my_gpu", None, ("nvidia-smi", ""), "", Role.USER, "words", 1.5, "kill", {"LC_ALL": "C"}, "/tmp"
    )
    assert config.server == ServerConfig("::1", 0, ("gw.example",), ("https://a.example", "http://b.example:8080"))
    assert config.agent == EchoAgentConfig(words_per_second=2)
    assert config.session == SessionConfig("refuse", 0, turn_seconds=0.5)
    assert config.breaker == BreakerConfig(1, 60, 0.5)
    assert config.store == StoreConfig(path="~/state/x.db", keep_days=1)
    assert dict(config.quick_commands) == {
        "my_gpu": gpu,
        "g": AliasCommand("g", "/my-gpu -q", role=Role.ADMIN),
    }
    assert config.catalog.find("G").target is config.quick_commands["my_gpu"]


def test_a_config_that_a_program_builds_is_checked_too():
    assert Config(quick_commands={"x": ExecCommand("x", "uptime")}).catalog.find("x")
    with pytest.raises(CatalogFaults):
        Config(quick_commands={"x": ExecCommand("x", "")})
    with pytest.raises(ConfigError, match="stop_budget_seconds"):
        Config(drain=DrainConfig(grace_seconds=23))
    with pytest.raises(ValueError, match="from 0 to 65535"):
        ServerConfig(port=-1)


def test_the_example_loads():
    config = load_config(EXAMPLE, {})
    assert config == Config(quick_commands=config.quick_commands)
    kinds = {name: type(command) for name, command in config.quick_commands.items()}
    assert list(kinds.values()) == [ExecCommand] * 3 + [AliasCommand]
    assert kinds["uptime"] is ExecCommand
    assert config.catalog.find("h").target.name == "help"
    assert "words" in {getattr(command, "args", None) for command in config.quick_commands.values()}


def test_the_defaults_that_the_example_shows_are_the_defaults():
    lines = EXAMPLE.read_text().splitlines()
    before = lines[: lines.index("[quick_commands.uptime]         # /uptime")]
    shown = [line.removeprefix("# ") if line.startswith("# ") and " = " in line else line for line in before]
    config = parse_config("\n".join(shown), environ={})
    assert config == Config()
    assert "keep_bytes = 8388608" in "\n".join(shown)


def test_the_tokens_that_the_example_shows_are_read():
    lines = EXAMPLE.read_text().replace("64 hexadecimal digits", "0" * 64).splitlines()
    config = parse_config(
        "\n".join(line.removeprefix("#") for line in lines if line[:2] != "# "), environ={"BOT_TOKEN": "x"}
    )
    assert [(token.name, token.role) for token in config.auth.tokens] == [("ann", Role.ADMIN), ("bot", Role.USER)]


# --- cases 65 and 66 ----------------------------------------------------------------------------------

SECONDS = [
    *[("server", "send_seconds"), ("exec", "term_seconds"), ("quick_commands.x", "timeout_seconds")],
    *[("session", f"{name}_seconds") for name in ("turn_idle", "turn", "permission")],
    ("auth", "failure_window_seconds"),
    *[("drain", f"{name}_seconds") for name in ("grace", "cleanup", "exec", "close", "stop_budget")],
    *[("breaker", f"{name}_seconds") for name in ("window", "probe")],
]


@pytest.mark.parametrize(("table", "key"), SECONDS)
@pytest.mark.parametrize(
    "value",
    ['"30s"', '"30"', "inf", "-inf", "nan", "-1", "0", "true", "[]", "{}", "1979-05-27", "0x" + "f" * 400],
)
def test_case_66_seconds_are_finite_numbers_above_zero(table, key, value):
    exec_ = 'type = "exec"\ncommand = "x"' if table == "quick_commands.x" else ""
    found = faults(f"[{table}]\n{exec_}\n{key} = {value}")
    assert list(found) == [f"{table}.{key}"]
    assert "must be a " in found[f"{table}.{key}"]


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ('[server]\nport = "80"', "server.port", "must be a whole number, not a string"),
        ("[server]\nport = true", "server.port", "must be a whole number, not true or false"),
        ("[server]\nport = 80.0", "server.port", "must be a whole number, not a number"),
        *[
            (f"[store]\npath = {path}", "store.path", "must be a file's absolute path, or begin with ~/")
            for path in ('""', '"gateway.db"', '"/"', '"~/"', '"~ann/x.db"', '":memory:"', r'"/a\u0000b"')
        ],
        ('[store]\ntype = "redis"', "store.type", 'must be "sqlite" or "memory"'),
        ('[store]\ntype = "memory"\npath = "/x"', "store", 'must have no path where its type is "memory"'),
        ("[store]\nkeep_days = 0", "store.keep_days", "must be a whole number from 1 to 36500"),
        ("[store]\nkeep_seconds = 5", "store.keep_seconds", 'unknown key; did you mean "keep_events"?'),
        ("[server]\nport = 65536", "server.port", "must be a whole number from 0 to 65535"),
        ("[server]\nhost = 1", "server.host", "must be a string, not a whole number"),
        ('[server]\nhost = "a..b"', "server.host", "1 to 63"),
        ('[server]\nhost = "ws://a"', "server.host", "without scheme"),
        ("[server]\nhost = 1979-05-27", "server.host", "must be a string, not a date or time"),
        ('[server]\nhosts = "a"', "server.hosts", "must be a list, not a string"),
        ('[server]\nhosts = ["a", 1]', "server.hosts[1]", "must be a string, not a whole number"),
        ('[server]\nhosts = ["a", "http://b"]', "server.hosts[1]", "must be a host's name or address"),
        ('[server]\nallowed_origins = ["*"]', "server.allowed_origins[0]", "must be an exact origin"),
        ('[server]\nallowed_origins = ["null"]', "server.allowed_origins[0]", "must be an exact origin"),
        (
            '[server]\nallowed_origins = ["https://a/"]',
            "server.allowed_origins[0]",
            "must be an exact origin",
        ),
        ("[server]\nmax_connections = 0", "server.max_connections", "from 1 to"),
        ("server = []", "server", "must be a table, not a list"),
        ("[[server]]", "server", "must be a table, not a list"),
        ("agent = 1", "agent", "must be a table, not a whole number"),
        ('[agent]\ntype = "ecco"', "agent.type", 'must be "echo" or "openai", not \'ecco\'; did you mean "echo"?'),
        ("[agent]\ntype = 1", "agent.type", 'must be "echo" or "openai", not a whole number'),
        ("[agent]\nwords_per_second = 0", "agent.words_per_second", "from 0.001 to 1e+06"),
        ('[session]\nbusy = "queu"', "session.busy", 'did you mean "queue"?'),
        ("[session]\nbusy = []", "session.busy", 'must be "queue" or "interrupt" or "refuse", not a list'),
        ("[session]\nquee_limit = 3", "session.quee_limit", 'unknown key; did you mean "queue_limit"?'),
        ("[session]\nzzz = 3", "session.zzz", "unknown key; known are busy, queue_limit"),
        ("[sesion]", "sesion", 'unknown key; did you mean "session"?'),
        ("[disk]\npath = 'x'", "disk", "unknown key; known are server"),
        ('"a b" = 1', '"a b"', "unknown key"),
        ("quick_commands = []", "quick_commands", "must be tables"),
        ("quick_commands.x = 1", "quick_commands.x", "must be a table, not a whole number"),
        ("[quick_commands.x]", "quick_commands.x.type", "is required: exec or alias"),
        ('quick_commands.x.type = "exce"', "quick_commands.x.type", 'did you mean "exec"?'),
        ('quick_commands.x.type = "alias"', "quick_commands.x.target", "is required"),
        ('quick_commands.x.type = "exec"', "quick_commands.x", "needs one of"),
    ],
)
def test_case_65_each_fault_has_its_path_and_the_nearest_key(text, path, message):
    found = faults(text)
    assert list(found) == [path]
    assert message in found[path]


@pytest.mark.parametrize(
    ("line", "key", "message"),
    [
        ('argv = "uptime"', "argv", "must be a list, not a string"),
        ('argv = ["a", ["b"]]', "argv[1]", "must be a string, not a list"),
        ('command = ["uptime"]', "command", "must be a string, not a list"),
        ('command = ""', "command", "is empty"),
        ('role = "root"', "role", 'must be "user" or "admin"'),
        ('args = "word"', "args", 'did you mean "words"?'),
        ("background = true", "background", 'must be "keep" or "kill", not true or false'),
        ("env = []", "env", "must be a table, not a list"),
        ("env = { A = 1 }", "env.A", "must be a string, not a whole number"),
        ("env = { 'a b' = 1 }", 'env."a b"', "must be a string, not a whole number"),
        ("cwd = 1", "cwd", "must be a string"),
        ('cwd = "tmp"', "cwd", "absolute"),
        ('name = "y"', "name", "unknown key"),
        ('target = "/help"', "target", "unknown key"),
        ('comand = "x"', "comand", 'did you mean "command"?'),
    ],
)
def test_the_faults_of_an_exec(line, key, message):
    command = "" if line.startswith(("argv", "command")) else 'command = "x"\n'
    found = faults(f'[quick_commands.x]\ntype = "exec"\n{command}{line}')
    assert message in found[f"quick_commands.x.{key}"]
    assert len(found) == 1


def test_case_65_every_fault_at_once():
    found = faults(
        """
        zzz = 1
        server.port = "80"
        server.prot = 80
        session.queue_limit = -1
        session.turn_seconds = "1h"
        exec.term_seconds = 10
        drain.grace_seconds = 30
        [agent]
        words_per_second = "fast"
        [quick_commands]
        status = { type = "exec", command = "x" }
        a_b = { type = "exec", command = "x" }
        a-b = { type = "exec", command = 1, timeout_seconds = nan }
        c = { type = "exec", command = "echo {args}" }
        h = { type = "alias", target = "/hlep" }
        i = { type = "alias", target = "/a-b" }
        "B d" = { type = "alias", target = "/help" }
        """
    )
    assert list(found) == [
        "zzz",
        "server.port",
        "server.prot",
        "session.queue_limit",
        "session.turn_seconds",
        "agent.words_per_second",
        "drain.stop_budget_seconds",
        "quick_commands.a-b.command",
        "quick_commands.a-b.timeout_seconds",
        "quick_commands.status",
        'quick_commands."B d"',
        "quick_commands.a-b",
        "quick_commands.c.command",
        "quick_commands.h.target",
    ]
    assert (
        "grace 30 + cleanup 5 + exec 25 + exec.term 10 + close 3 + slack 3 = 76"
        in found["drain.stop_budget_seconds"]
    )


def test_a_sum_that_just_fits_is_good():
    assert parse_config("[drain]\ngrace_seconds = 22", environ={}).drain.grace_seconds == 22
    assert list(faults("[drain]\ngrace_seconds = 22.1")) == ["drain.stop_budget_seconds"]
    tenths = "[exec]\nterm_seconds=0.1\n[drain]\ngrace_seconds=0.1\ncleanup_seconds=0.1\nexec_seconds=0.3\nclose_seconds=0.1\nstop_budget_seconds=3.7"
    assert parse_config(tenths, environ={})


@pytest.mark.parametrize("text", ["a = = 1", "[server]\nport = 1\nport = 2", "x" * 100, "a = [1, 2"])
def test_a_syntax_error_has_a_place(text):
    [message] = faults(text).values()
    assert "(at " in message


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "1" * 5000])
def test_what_toml_allows_and_we_cannot_read_is_a_fault_too(text):
    assert list(faults(text)) == ["<config>"]


def test_a_syntax_error_names_the_source():
    with pytest.raises(ConfigError, match=r"^gw\.toml: .*line 2, column 5"):
        parse_config("a = 1\nb = = 1", source="gw.toml", environ={})


def test_a_wrong_value_is_not_repeated():
    assert "hunter2" not in str(
        faults('[quick_commands.x]\ntype="exec"\nenv="TOKEN=hunter2"\n[server]\nport="hunter2"')
    )


leaf = st.one_of(st.booleans(), st.integers(-5, 5), st.just('"x"'), st.just("[]"), st.just("{}"), st.just("nan"))
keys = ["server", "agent", "session", "exec", "drain", "quick_commands", "port", "x", "type"]


@given(st.lists(st.tuples(st.sampled_from(keys), st.sampled_from(keys), leaf), max_size=6))
def test_any_tree_is_a_config_or_a_list_of_faults(lines):
    text = "\n".join(f"{table}.{key} = {str(value).lower()}" for table, key, value in lines)
    try:
        assert isinstance(parse_config(text, environ={}), Config)
    except ConfigError as error:
        assert error.faults


# --- the file -------------------------------------------------------------------------------------------


def write(path, content, mode=0o600):
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_file_is_read(tmp_path):
    path = write(tmp_path / "gw.toml", "[server]\nport = 1 # é\n".encode(), 0o644)
    assert load_config(path, {}) == load_config(str(path), {}) == Config(ServerConfig(port=1))


@pytest.mark.parametrize("mode", [0o602, 0o666, 0o606])
def test_a_file_that_others_may_write_is_refused_with_its_other_faults(tmp_path, mode):
    path = write(tmp_path / "gw.toml", b"zzz = 1", mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}") as caught:
        load_config(path, {})
    assert [fault.path for fault in caught.value.faults] == [str(path), "zzz"]
    write(path, b"", mode)
    with pytest.raises(ConfigError, match="chmod go-w") as caught:
        load_config(path, {})
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert len(caught.value.faults) == 1


def test_a_file_that_its_owners_private_group_may_write_is_read_and_one_of_another_group_is_not(tmp_path):
    """A private group has the number of its user; under a umask of 002 every file is its group's to write."""
    path = write(tmp_path / "gw.toml", b"", 0o660)
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(path, 1234, 1234)
    assert load_config(path, {}) == Config()
    os.chown(path, 1234, 4321)
    with pytest.raises(ConfigError, match="mode 0660"):
        load_config(path, {})


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read(tmp_path, name):
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / name, {})
    [fault] = caught.value.faults
    assert fault.path == str(tmp_path / name)
    assert fault.message in {"No such file or directory", "Is a directory"}


def test_a_file_that_is_no_text(tmp_path):
    path = write(tmp_path / "gw.toml", b"# \xff")
    with pytest.raises(ConfigError, match="is not UTF-8, at byte 2"):
        load_config(path, {})


# --- what others ask ------------------------------------------------------------------------------------


def test_an_empty_host_is_every_address():
    assert parse_config('[server]\nhost = ""', environ={}).server.host == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "::",
        "0",
        "",
        "10.0.0.1",
        "example.org",
        "localhost.evil.example",
        "127.1",
        "::ffff:10.0.0.1",
    ],
)
def test_not_loopback(host):
    assert not is_loopback(host)


def test_secrets_are_the_values_of_the_names_that_commands_mention():
    config = Config(
        quick_commands={
            "a": ExecCommand(
                "a",
                'curl -H "$API_KEY" ${OTHER:-x} ${#LENGTH} $HOME $PWD $1 $? $$',
                env={"PGPASS": "x", "LANG": "C"},
            ),
            "b": ExecCommand("b", argv=("sh", "-c", "echo $SHORT $EMPTY $UNSET")),
            "h": AliasCommand("h", "/help"),
        }
    )
    assert config.secret_names == ("API_KEY", "EMPTY", "LENGTH", "OTHER", "PGPASS", "SHORT", "UNSET")
    environ = {
        "API_KEY": "sk-12345678",
        "OTHER": "12345678",
        "PGPASS": "sk-12345678",
        "SHORT": "1234567",
        "EMPTY": "",
        "HOME": "/home/somebody",
        "PWD": "/home/somebody",
        "UNRELATED": "123456789",
    }
    assert secrets(config, environ) == (("sk-12345678", "12345678"), ("SHORT",))
    assert secrets(Config(), environ) == ((), ())


# --- [agent] of type openai -------------------------------------------------------------------------

OPENAI = '[agent]\ntype = "openai"\nbase_url = "http://localhost:8080/v1"\nmodel = "m"\n'


def test_a_model_needs_three_lines():
    agent = parse_config(OPENAI, environ={}).agent
    assert agent == OpenAIAgentConfig(base_url="http://localhost:8080/v1", model="m")
    assert agent == OpenAIAgentConfig(
        base_url="http://localhost:8080/v1",
        model="m",
        api_key_env=None,
        system_prompt="",
        max_history_messages=100,
        max_retries=2,
        first_token_seconds=120,
        token_seconds=60,
        context_tokens=0,
    )


def test_what_a_model_needs_is_asked_for():
    assert faults('[agent]\ntype = "openai"') == {"agent.base_url": "is required", "agent.model": "is required"}
    assert faults(OPENAI + "words_per_second = 5")["agent.words_per_second"].startswith("unknown key")


@pytest.mark.parametrize(
    "url", ["https://api.openai.com/v1", "http://[::1]:11434/v1/", "http://10.0.0.5", "https://a.example/x/v1"]
)
def test_a_base_url_is_taken(url):
    assert OpenAIAgentConfig(base_url=url, model="m").base_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8080/v1",
        "ftp://a/v1",
        "http://u:p@a/v1",
        "http://a/v1?key=x",
        "http://a/v1#x",
        "http://a b/",
        "http://a:99999/v1",
        "http://a:0/v1",
        "http://[zz]/v1",
        "http://[::1/v1",
        "http://a..b/v1",
    ],
)
def test_a_base_url_is_refused(url):
    assert (
        "must be an http or https URL" in faults(OPENAI.replace("http://localhost:8080/v1", url))["agent.base_url"]
    )


@pytest.mark.parametrize(
    ("line", "path", "message"),
    [
        ("max_retries = -1", "agent.max_retries", "whole number from 0"),
        ("max_history_messages = 1.5", "agent.max_history_messages", "whole number"),
        ("first_token_seconds = 0", "agent.first_token_seconds", "above 0"),
        ('token_seconds = "60s"', "agent.token_seconds", "must be a number"),
        ("context_tokens = true", "agent.context_tokens", "whole number"),
        ("api_key_env = 5", "agent.api_key_env", "string"),
        ('api_key = "sk-12345678"', "agent.api_key", 'did you mean "api_key_env"?'),
    ],
)
def test_a_models_limits_are_checked(line, path, message):
    assert message in faults(OPENAI + line)[path]


def test_a_key_in_the_place_of_its_name_is_refused_and_not_repeated():
    (message,) = faults(OPENAI + 'api_key_env = "sk-proj-12345678"').values()
    assert "name of an environment variable" in message
    assert "12345678" not in message


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "the environment variable MODEL_KEY is not set"),
        ({"MODEL_KEY": ""}, "the environment variable MODEL_KEY is not set"),
        ({"MODEL_KEY": "sk-12345678\n"}, "the value of MODEL_KEY has blanks, line ends"),
        ({"MODEL_KEY": "sk-ü2345678"}, "the value of MODEL_KEY has blanks, line ends"),
    ],
)
def test_a_key_that_cannot_be_sent_is_a_fault_that_does_not_show_it(environ, message):
    with pytest.raises(ConfigError) as caught:
        parse_config(OPENAI + 'api_key_env = "MODEL_KEY"', environ=environ)
    assert str(caught.value).startswith(f"agent.api_key_env: {message}")
    assert "2345678" not in str(caught.value)


def test_a_models_key_is_a_secret_of_every_exec():
    environ = {"MODEL_KEY": "sk-12345678"}
    config = parse_config(OPENAI + 'api_key_env = "MODEL_KEY"', environ=environ)
    assert config.secret_names == ("MODEL_KEY",)
    assert secrets(config, environ) == (("sk-12345678",), ())
    assert parse_config(OPENAI, environ={}).secret_names == ()


def test_the_model_that_the_example_shows_has_every_key_and_its_default():
    shown = [line.removeprefix("## ") for line in EXAMPLE.read_text().splitlines() if line.startswith("## ")]
    agent = parse_config("\n".join(shown), environ={"MODEL_KEY": "sk-12345678"}).agent
    assert agent == OpenAIAgentConfig(
        base_url="http://127.0.0.1:11434/v1", model="qwen3:8b", api_key_env="MODEL_KEY"
    )
    assert {line.split(" = ")[0] for line in shown[1:]} == set(attrs.fields_dict(OpenAIAgentConfig))


def test_the_readmes_five_lines_are_a_config():
    readme = (EXAMPLE.parent.parent / "README.md").read_text()
    (block,) = (part.split("```")[0] for part in readme.split("```toml")[1:] if "openai" in part.split("```")[0])
    assert len(block.split("\n[", 1)[0].strip().splitlines()) <= 5
    assert isinstance(parse_config(block, environ={}).agent, OpenAIAgentConfig)
