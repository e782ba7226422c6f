"""What an agent may ask, and that nothing but a choice among its options is an answer."""

import pytest

from gateway_trio.core.permission import (
    ALLOW_OR_REJECT,
    CANCELLED,
    LAPSED,
    MOST_OPTIONS,
    Answered,
    Asked,
    Decision,
    PermissionOption,
    check_options,
    chosen,
    find,
    preferred,
)

ALLOW, REJECT = ALLOW_OR_REJECT
ALWAYS = PermissionOption("aa", "Always", "allow_always")
NEVER = PermissionOption("ra", "Never", "reject_always")


def asked(id_="p3", title="Delete x"):
    return Asked(id_, {"toolCallId": "c", "title": title}, ALLOW_OR_REJECT)


def selected(option_id):
    return {"outcome": {"outcome": "selected", "optionId": option_id}}


def test_the_first_option_is_a_yes_and_the_second_a_no():
    assert Decision("selected", ALLOW, "ann").allowed
    assert Decision("selected", ALWAYS, "ann").allowed
    assert not Decision("selected", REJECT, "ann").allowed
    assert not Decision("selected", NEVER, "ann").allowed
    assert not LAPSED.allowed
    assert not CANCELLED.allowed


def test_a_kind_is_one_of_acps():
    with pytest.raises(ValueError, match="kind"):
        PermissionOption("x", "X", "maybe")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ((), "has 1 to 16 options, not 0"),
        ([PermissionOption(str(n), "x", "allow_once") for n in range(MOST_OPTIONS + 1)], "not 17"),
        ((ALLOW, ALLOW), "the same id"),
        ((PermissionOption("", "x", "allow_once"),), "1 to 128 characters"),
        ((PermissionOption("x" * 129, "x", "allow_once"),), "1 to 128 characters"),
    ],
)
def test_options_among_which_nobody_could_choose(options, why):
    with pytest.raises(ValueError, match=why):
        check_options(options)


@pytest.mark.parametrize("value", [None, 5, b"x", ["x"], {"x": 1}])
def test_what_is_no_option(value):
    with pytest.raises(TypeError, match="PermissionOption"):
        check_options([ALLOW, value])
    with pytest.raises(TypeError, match="texts"):
        check_options([ALLOW, PermissionOption(value, "x", "allow_once")])
    with pytest.raises(TypeError, match="texts"):
        check_options([ALLOW, PermissionOption("x", value, "allow_once")])
    with pytest.raises(ValueError, match="kind"):
        PermissionOption("x", "X", value)


@pytest.mark.parametrize("options", [None, 5, iter(ALLOW_OR_REJECT)])
def test_options_are_a_sequence(options):
    with pytest.raises(TypeError):
        check_options(options)


def test_an_option_without_a_name_in_a_log_can_still_be_told():
    """Such a one was taken once."""
    decision = Decision("selected", PermissionOption("x", None, "allow_once"), "ann")
    assert Answered("p3", decision).words == "p3 was answered by ann: None"


def test_options_that_will_do():
    check_options(ALLOW_OR_REJECT)
    check_options([PermissionOption("x" * 128, "", "allow_once")])
    check_options([PermissionOption(str(n), "x", "allow_once") for n in range(MOST_OPTIONS)])


def test_an_answer_is_an_option_that_was_offered():
    assert chosen(selected("allow"), ALLOW_OR_REJECT) is ALLOW
    assert chosen({**selected("reject"), "_meta": {"x": 1}}, ALLOW_OR_REJECT) is REJECT


@pytest.mark.parametrize(
    "answer",
    [
        None, 1, "allow", [], {}, {"outcome": "selected"}, {"outcome": {"outcome": "cancelled"}}, selected("other"),
        selected(None), selected(["allow"]), {"outcome": {"optionId": "allow"}}, {"optionId": "allow"},
        {"outcome": {"outcome": "cancelled", "optionId": "allow"}},
    ],
)  # fmt: skip
def test_all_else_is_no_answer(answer):
    assert chosen(answer, ALLOW_OR_REJECT) is None


@pytest.mark.parametrize(
    ("options", "allow", "deny"),
    [
        (ALLOW_OR_REJECT, ALLOW, REJECT),
        ((ALWAYS, NEVER, ALLOW, REJECT), ALLOW, REJECT),
        ((ALWAYS, NEVER), ALWAYS, NEVER),
        ((REJECT,), None, REJECT),
        ((ALLOW, PermissionOption("second", "x", "allow_once")), ALLOW, None),
    ],
)
def test_allow_and_deny_mean_once_before_always_and_the_first_of_a_kind(options, allow, deny):
    assert (preferred(options, allow=True), preferred(options, allow=False)) == (allow, deny)


def test_an_id_may_be_left_out_where_exactly_one_is_open():
    one, two = asked(), asked("p9", "Delete\ny " + "z" * 100)
    assert find({}, "") == find({}, "p3") == "Nothing asks for permission in this session."
    assert find({"p3": one}, "") is one
    assert find({"p3": one, "p9": two}, "P9") is two
    assert find({"p3": one}, "p4") == "There is no open request p4; open: p3 (Delete x)."
    listed = find({"p3": one, "p9": two}, "")
    assert listed.startswith("Say which one: p3 (Delete x), p9 (Delete y zzz")
    assert len(find({"p3": one}, "x" * 10_000)) < 200


def test_a_request_has_a_title_for_people():
    assert asked(title="Delete\n  x").title == "Delete x"
    assert asked(title="").title == Asked("p1", {"toolCallId": "c"}, ALLOW_OR_REJECT).title == "a tool"


def test_how_it_ended_in_words():
    assert Answered("p3", Decision("selected", ALLOW, "ann")).words == "p3 was answered by ann: Allow"
    assert Answered("p3", LAPSED).words == "p3 lapsed: nobody was here to answer it"
    assert Answered("p3", CANCELLED).words == "p3 is not asked any more"
