"""What a session's log is to the model: prompts and answers, and nothing of execs or control commands."""

from __future__ import annotations

from attrs import define, field

from gateway_trio.agents import HistoryItem
from gateway_trio.core.events import Change, Kind, Log, Message, Prompt, Update

__all__ = ["NEW_CONVERSATION", "history", "last_prompt"]

#: An `Update` with this data begins a new conversation in a session: no earlier turn is in the history.
NEW_CONVERSATION = "new conversation"


@define
class _Turn:
    """What the log has of one turn."""

    prompt: Prompt
    answer: list[str] = field(factory=list)
    state: str = "queued"


def history(log: Log, *, without: str | None = None) -> tuple[HistoryItem, ...]:
    """Return prompts and answers of the turns of this conversation, in the order in which they ran.

    `without` is a turn to leave out: the one that asks. A turn that was run again by `/retry` is left out too.
    """
    turns: dict[str, _Turn] = {}
    ran: list[str] = []
    for entry in log:
        turn = turns.get(entry.owner)
        match entry.body:
            case Update(data) if data == NEW_CONVERSATION:
                ran.clear()
            case Prompt() as prompt if prompt.lane == "turn":
                turns[entry.owner] = _Turn(prompt)
            case Message(Kind.ANSWER) if turn is not None:
                turn.answer.append(str(entry.text))
            case Change("turn", _, state) if turn is not None:
                turn.state = state
                if state == "running":
                    ran.append(entry.owner)
    replaced = {turns[id_].prompt.replaces for id_ in ran}
    items: list[HistoryItem] = []
    for id_ in ran:
        if id_ != without and id_ not in replaced:
            items += _items(turns[id_])
    return tuple(items)


def _items(turn: _Turn) -> list[HistoryItem]:
    items = [HistoryItem("user", turn.prompt.text)]
    if turn.answer:
        cut = turn.state != "completed"
        items.append(HistoryItem("assistant", "".join(turn.answer), interrupted=cut))
    return items


def last_prompt(log: Log) -> tuple[str, Prompt] | None:
    """Return the id and the prompt of the turn that `/retry` runs again; None if there is none.

    It is the newest. But where a turn was interrupted and nobody has asked anything since, it is that one,
    although what had waited behind it has run.
    """
    prompts: dict[str, tuple[int, Prompt]] = {}
    newest: str | None = None
    cut: str | None = None
    for entry in log:
        match entry.body:
            case Prompt(lane="turn") as prompt:
                prompts[entry.owner] = (entry.number, prompt)
                newest, cut = entry.owner, None
            case Change("turn", id_, "interrupted") if id_ in prompts:
                cut = id_ if cut is None else max(cut, id_, key=lambda id_: prompts[id_][0])
    chosen = cut or newest
    return None if chosen is None else (chosen, prompts[chosen][1])
