import pytest

from gateway_trio.core.kinds import BUILT_INS, AliasCommand, ExecCommand, Role, Takes, fold, join, may
from gateway_trio.core.phases import Lane
from gateway_trio.core.words import WordsError


def test_an_admin_may_all_and_a_user_may_not():
    assert [may(r, n) for r in Role for n in Role] == [True, False, True, True]


def test_names_are_folded():
    assert fold("Disk_Use") == fold("disk-use") == "disk-use"
    assert fold("\u212aILL_Ü") == "\u212aILL_Ü"  # a Kelvin sign is no k


def test_alias_words_come_first():
    assert [join("a", "b"), join("", "b"), join("a", ""), join("", "")] == ["a b", "b", "a", ""]


def test_the_built_ins_are_those_of_the_design():
    by_lane = {(c.lane, c.role): set() for c in BUILT_INS.values()}
    for command in BUILT_INS.values():
        by_lane[command.lane, command.role].add(command.name)
    control = "help commands status whoami history ps stop kill allow deny"
    assert by_lane == {
        (Lane.CONTROL, Role.USER): set(control.split()),
        (Lane.CONTROL, Role.ADMIN): {"drain", "undrain", "restart", "reload"},
        (Lane.TURN, Role.USER): {"queue", "interrupt", "retry", "new"},
    }
    assert all(name == command.name and command.description for name, command in BUILT_INS.items())


@pytest.mark.parametrize(
    ("takes", "good", "bad"),
    [
        (Takes.NOTHING, [""], ["x"]),
        (Takes.NUMBER, ["", "1", "250"], ["0", "-1", "x", "1 2", "1.5", "²", "٣", "9" * 10]),
        (Takes.ID, ["3", "e-17"], ["", "3 4"]),
        (Takes.MAYBE_ID, ["", "p3"], ["p3 p4"]),
        (Takes.TEXT, ["x", "x y"], [""]),
        (Takes.WHY, ["", "new disk", "x" * 1000], ["x" * 1001]),
        (Takes.REASON, ["", "operator", "backend", "restart"], ["shutdown", "x", "backend now"]),
    ],
)
def test_what_a_built_in_takes(takes, good, bad):
    assert [rest for rest in (*good, *bad) if takes.accepts(rest)] == good


def test_a_built_in_keeps_a_text_and_strips_all_else():
    assert BUILT_INS["queue"].take(" buy milk ") == " buy milk "
    assert BUILT_INS["kill"].take(" 7\n") == "7"
    assert BUILT_INS["status"].take(" \n") == ""
    with pytest.raises(WordsError, match="/queue does not take that"):
        BUILT_INS["queue"].take("  ")


def test_usage_shows_what_may_follow():
    assert BUILT_INS["history"].usage == "/history [n]"
    assert BUILT_INS["status"].usage == "/status"
    assert ExecCommand("gpu").usage == "/gpu"
    assert ExecCommand("note", args="text").usage == "/note [TEXT]"
    assert ExecCommand("logs", args="words").usage == "/logs [WORD …]"
    assert (AliasCommand("h", "/help").usage, AliasCommand("h", "/help").hint) == ("/h", "")


def test_an_exec_is_for_admins_and_does_not_change():
    env = {"A": "1"}
    command = ExecCommand("gpu", "nvidia-smi", env=env)
    env["B"] = "2"
    assert command.role is Role.ADMIN
    assert dict(command.env) == {"A": "1"}
    assert hash(command) == hash(ExecCommand("gpu", "nvidia-smi", env={"A": "1"}))
    with pytest.raises(ValueError, match="finite"):
        ExecCommand("gpu", "x", timeout_seconds=0)


HOSTILE = ["; rm -rf x", "$(id)", "`id`", 'a b "c d"', "*", "-n", "%s%n", "a\nb", ""]  # case 27


def test_no_words_where_none_are_taken():
    command = ExecCommand("gpu", "x")
    assert command.take("") == command.take(" \n") == command.take_list([]) == ()
    for give in (lambda: command.take("x"), lambda: command.take_list([""])):
        with pytest.raises(WordsError, match="/gpu takes nothing after its name"):
            give()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_one_word_as_it_is(text):
    command = ExecCommand("note", "x", args="text")
    assert command.take(text) == ((text,) if text else ())
    assert command.take_list([text]) == (text,)
    assert command.take_list(["milk"], before="buy") == ("buy milk",)
    assert command.take_list([], before="buy") == ("buy",)
    with pytest.raises(WordsError, match="one text"):
        command.take_list(["a", "b"])


def test_words_are_split_from_a_text_and_not_from_a_list():
    command = ExecCommand("logs", "x", args="words")
    assert command.take("a 'b c'") == ("a", "b c")
    assert command.take_list(HOSTILE) == tuple(HOSTILE)
    assert command.take_list(["'"], before="a 'b c'") == ("a", "b c", "'")


@pytest.mark.parametrize("args", ["text", "words"])
def test_the_limits_hold_on_every_road(args):
    command = ExecCommand("x", "x", args=args)
    for give in (command.take, lambda text: command.take_list([text])):
        with pytest.raises(WordsError, match="NUL"):
            give("\0")
