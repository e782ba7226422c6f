"""What fills a log in tests of it and of the cursor."""

from gateway_trio.core.events import Change, Kind, Message


def end(owner, state="completed"):
    return Change("turn", owner, state, 1, ends=True)


def running(owner):
    return Change("turn", owner, "running", 1, ends=False)


def say(log, owner, text, kind=Kind.ANSWER):
    """Append to the owner's message, as a session does: a new one where there is none or it is full."""
    while text:
        room = log.room(owner, kind)
        if not room:
            log.append(owner, Message(kind))
            continue
        log.say(owner, text[:room])
        text = text[room:]
