"""What a command is given, and what is said where it cannot start."""

import errno

import pytest

from gateway_trio.core.exec import environment, shell_argv, why_not_started


def test_only_the_allow_list_and_the_extra_names_come_through():
    base = {"PATH": "/bin", "HOME": "/root", "OPENAI_API_KEY": "sk-1", "LD_PRELOAD": "x", "LC_ALL": "C"}
    assert environment(base, {"X": "1", "LC_ALL": "da"}) == {
        "PATH": "/bin",
        "HOME": "/root",
        "LC_ALL": "da",
        "X": "1",
    }


def test_words_are_arguments_of_the_shell():
    assert shell_argv("note", 'echo "$1"', ["; rm", "b"]) == (
        "/bin/sh",
        "-c",
        'echo "$1"',
        "gateway-trio:note",
        "; rm",
        "b",
    )


@pytest.mark.parametrize(
    ("exc", "words"),
    [
        (OSError(errno.ENOENT, "No such file", "/cwd"), "cannot run in the directory '/cwd'"),
        (OSError(errno.EACCES, "Permission denied", "/cwd"), "cannot run in the directory '/cwd'"),
        (OSError(errno.ENOENT, "No such file", "prog"), "program not found: 'prog'"),
        (OSError(errno.EACCES, "Permission denied", "prog"), "not executable: 'prog'"),
        (OSError(errno.ENOEXEC, "Exec format error", "prog"), "not executable: 'prog'"),
        (OSError(errno.E2BIG, "Argument list too long", "prog"), "too long"),
        (OSError(errno.EMFILE, "Too many open files"), "cannot be started: Too many open files"),
        (ValueError("embedded null byte"), "cannot be started: embedded null byte"),
    ],
)
def test_each_failure_has_its_own_words(exc, words):
    assert words in why_not_started("prog", "/cwd", exc)


def test_a_program_named_like_the_directory_is_taken_for_the_program():
    assert "program not found" in why_not_started("/x", "/x", OSError(errno.ENOENT, "No such file", "/x"))
