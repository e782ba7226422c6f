import pytest

from gateway_trio.core.catalog import Catalog, CatalogFault, CatalogFaults, find_faults
from gateway_trio.core.kinds import BUILT_INS, AliasCommand, ExecCommand, Role

GPU = ExecCommand("gpu", "nvidia-smi")
NOTE = ExecCommand("my_note", "x", args="text", role=Role.USER)


def test_names_are_found_in_every_spelling():
    catalog = Catalog.build([GPU, NOTE])
    assert {catalog.find(name).target for name in ("my_note", "my-note", "MY_Note", "My-NOTE")} == {NOTE}
    assert catalog.find("Status").target is BUILT_INS["status"]
    assert [catalog.find(name) for name in ("", "nothing", "Ünïcode", "\u212aill", "/gpu")] == [None] * 5


def test_aliases_are_followed_to_the_end_and_their_words_are_put_in_order():
    catalog = Catalog.build([AliasCommand("a", "/b x"), AliasCommand("b", "/MY-note y"), NOTE])
    found = catalog.find("a")
    assert (found.target, [alias.name for alias in found.aliases], found.typed.name) == (
        NOTE,
        ["a", "b"],
        "a",
    )
    assert found.rest("z") == "y x z"
    assert found.rest("") == "y x"
    assert catalog.find("gpu") is None


@pytest.mark.parametrize(
    ("alias_role", "target_role", "role"),
    [
        (Role.USER, Role.USER, Role.USER),
        (Role.USER, Role.ADMIN, Role.ADMIN),
        (Role.ADMIN, Role.USER, Role.ADMIN),
    ],
)
def test_an_alias_narrows_and_never_widens(alias_role, target_role, role):
    target = ExecCommand("t", "x", role=target_role)
    catalog = Catalog.build([target, AliasCommand("a", "/t", role=alias_role), AliasCommand("b", "/a")])
    assert catalog.find("a").role is catalog.find("b").role is role
    assert ("b" in [c.name for c in catalog.visible(Role.USER)]) is (role is Role.USER)
    assert "b" in [c.name for c in catalog.visible(Role.ADMIN)]


def test_only_what_a_role_may_run_is_listed_and_near():
    catalog = Catalog.build([GPU, NOTE, AliasCommand("d", "/drain")])
    names = {command.name for command in catalog.visible(Role.USER)}
    assert names == {n for n, c in BUILT_INS.items() if c.role is Role.USER} | {"my_note"}
    assert {c.name for c in catalog.visible(Role.ADMIN)} == {*BUILT_INS, "gpu", "my_note", "d"}
    assert catalog.near("My_Not", Role.USER) == ("my_note",)
    assert catalog.near("gpuu", Role.USER) == ()
    assert catalog.near("gpuu", Role.ADMIN) == ("gpu",)
    assert catalog.near("status" * 100_000, Role.ADMIN) == ()


def test_an_alias_has_the_hint_of_its_target():
    catalog = Catalog.build([NOTE, AliasCommand("n", "/my-note")])
    assert catalog.hint(catalog.find("n").typed) == catalog.hint(NOTE) == "[TEXT]"


def faults(*commands, unread=()):
    return [(fault.name, fault.key, fault.message) for fault in find_faults(commands, unread)]


@pytest.mark.parametrize("name", ["", "Gpu", "-x", "_x", "ü", "a b", "a/b", "a\n", "/x"])
def test_a_bad_name(name):
    [(at, key, message)] = faults(ExecCommand(name, "x"))
    assert (at, key) == (name, "")
    assert "a name is made of" in message


def test_clashes_after_folding():
    assert faults(ExecCommand("status", "x"), AliasCommand("kill", "/ps")) == [
        ("status", "", "/status is built in"),
        ("kill", "", "/kill is built in"),
    ]
    assert faults(ExecCommand("a_b", "x"), ExecCommand("a-b", "x")) == [("a-b", "", "is the same name as a_b")]
    assert faults(GPU, unread=["gpu", "help"]) == [
        ("gpu", "", "is the same name as gpu"),
        ("help", "", "/help is built in"),
    ]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/hlep", "there is no command /hlep; did you mean /help?"),
        ("/zzzzzz", "there is no command /zzzzzz"),
        ("/Ünïcode", "there is no command /Ünïcode"),
        ("/\u212aill 3", "there is no command /\u212aill; did you mean /kill?"),
        ("help", "must be a command, such as \"/help\", not 'help'"),
        ("", "must be a command, such as \"/help\", not ''"),
        ("/", "must be a command, such as \"/help\", not '/'"),
        ("//help", "must be a command, such as \"/help\", not '//help'"),
        ("/bin/df", "must be a command, such as \"/help\", not '/bin/df'"),
        ("/a", "leads in a circle: /a → /a"),
        ("/b", "leads in a circle: /a → /b → /a"),
        ("/note {args}", "{args} is not replaced: what is typed after the name is appended"),
        ("/status x", "/status does not take that; its usage is /status"),
        ("/gpu x", "/gpu takes nothing after its name; its usage is /gpu"),
        ("/logs 'x", "a quote was left open; its usage is /logs [WORD …]"),
    ],
)
def test_an_alias_that_leads_nowhere(target, message):
    others = [GPU, ExecCommand("logs", "x", args="words"), AliasCommand("b", "/a")]
    assert ("a", "target", message) in faults(AliasCommand("a", target), *others)


def test_an_alias_to_what_could_not_be_read_is_not_reported():
    assert faults(AliasCommand("a", "/broken x"), unread=["broken"]) == []


def test_a_circle_is_told_for_every_alias_that_leads_into_it():
    circle = [AliasCommand("a", "/b"), AliasCommand("b", "/a"), AliasCommand("c", "/a")]
    assert [name for name, _, _ in faults(*circle)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("command", "key", "message"),
    [
        (ExecCommand("x"), "", "needs one of"),
        (ExecCommand("x", "a", ("b",)), "", "needs one of"),
        (ExecCommand("x", ""), "command", "is empty"),
        (ExecCommand("x", " \n"), "command", "is empty"),
        (ExecCommand("x", argv=()), "argv", "is empty"),
        (ExecCommand("x", argv=("", "a")), "argv", "is empty"),
        (ExecCommand("x", "echo {args}"), "command", "{args} is not replaced"),
        (ExecCommand("x", argv=("echo", "{args}")), "argv", "{args} is not replaced"),
        (ExecCommand("x", "a\0"), "command", "NUL"),
        (ExecCommand("x", argv=("a", "\0")), "argv", "NUL"),
        (ExecCommand("x", "a", cwd=""), "cwd", "absolute"),
        (ExecCommand("x", "a", cwd="tmp"), "cwd", "absolute"),
        (ExecCommand("x", "a", cwd="/t\0"), "cwd", "absolute"),
        (ExecCommand("x", "a", env={"": "1"}), "env", "must not be empty"),
        (ExecCommand("x", "a", env={"A=B": "1"}), "env", "hold ="),
        (ExecCommand("x", "a", env={"A": "\0"}), "env", "NUL"),
        (ExecCommand("x", "a", env={"GATEWAY_TRIO_EXEC_ID": "1"}), "env", "the gateway's own"),
    ],
)
def test_an_exec_that_cannot_run(command, key, message):
    [(name, at, text)] = faults(command)
    assert (name, at) == ("x", key)
    assert message in text


def test_good_ones_have_no_faults():
    assert (
        faults(ExecCommand("x", argv=("df", ""), cwd="/tmp", env={"A": ""}), AliasCommand("h", "/history 5")) == []
    )


def test_a_catalog_is_not_made_of_faults_and_all_are_told():
    with pytest.raises(CatalogFaults, match="x: is empty; h: there is no command /zz") as caught:
        Catalog.build([ExecCommand("x", ""), AliasCommand("h", "/zz")])
    assert caught.value.faults[0] == CatalogFault("x", "command", "is empty")
    assert len(caught.value.faults) == 2
