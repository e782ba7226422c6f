"""Events of a session as frames of ACP, and outcomes as the answers to the prompts that they end."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from gateway_trio.agents import Usage
from gateway_trio.core import acp
from gateway_trio.core.catalog import Catalog
from gateway_trio.core.cursor import Lost, Piece
from gateway_trio.core.events import Change, Entry, Kind, Message, Prompt, Update
from gateway_trio.core.history import NEW_CONVERSATION
from gateway_trio.core.jsonrpc import RequestId, encode, error, problem, result
from gateway_trio.core.kinds import Role
from gateway_trio.core.permission import Answered, Asked, Decision

__all__ = ["ROOM", "answer", "commands_update", "frames_of", "meta", "usage_update"]

#: Characters in a chunk. In JSON each is at most 12 bytes, so that no frame is over 256 KiB.
ROOM = 16 * 1024

_CHUNKS: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.ANSWER: "agent_message_chunk",
        Kind.THOUGHT: "agent_thought_chunk",
        Kind.OUTPUT: "agent_message_chunk",
    }
)


def frames_of(session_id: str, piece: Piece | Lost) -> list[str]:
    """Return the `session/update` frames of a piece; none where it has nothing to show."""
    if isinstance(piece, Lost):
        return [encode(acp.info(session_id, {"lost": {"from": piece.start, "to": piece.upto}}))]
    entry = piece.entry
    match entry.body:
        case Prompt(text):
            return [
                _chunk(session_id, "user_message_chunk", entry, at, text[at : at + ROOM])
                for at in range(0, max(len(text), 1), ROOM)
            ]
        case Message(kind):
            return [_chunk(session_id, _CHUNKS[kind], entry, piece.at, piece.text)] if piece.text else []
        case Change() as change:
            return [encode(acp.info(session_id, {"seq": entry.number, change.work: _change(change)}))]
        case Update(data) if data == NEW_CONVERSATION:
            return [encode(acp.info(session_id, {"seq": entry.number, "newConversation": True}))]
        case Update(data):
            return [encode(acp.update(session_id, data, meta(entry)))]
        case Asked() as asked:
            about = {
                "id": asked.id,
                "state": "asked",
                "toolCallId": asked.tool["toolCallId"],
                "title": asked.title,
            }
            return [encode(acp.info(session_id, {**meta(entry), "permission": about}))]
        case Answered(id_, decision):
            return [
                encode(acp.info(session_id, {**meta(entry), "permission": {"id": id_, **_decision(decision)}}))
            ]


def meta(entry: Entry) -> dict[str, Any]:
    """Return the number of an event and whose it is."""
    return {"seq": entry.number, "execId" if entry.owner.startswith("x") else "turnId": entry.owner}


def _chunk(session_id: str, kind: str, entry: Entry, at: int, text: str) -> str:
    return encode(acp.chunk(session_id, kind, text, f"m{entry.number}", {**meta(entry), "at": at}))


def _decision(decision: Decision) -> dict[str, Any]:
    option = decision.option
    return {"state": decision.outcome, "optionId": None if option is None else option.id, "by": decision.by}


def _change(change: Change) -> dict[str, Any]:
    fields = {
        "id": change.id,
        "key": change.key,
        "seq": change.seq,
        "state": change.state,
        "reason": change.reason,
    }
    if change.position is not None:
        fields["position"] = change.position
    if change.facts is not None:
        fields |= {name: value for name, value in change.facts.items() if name not in fields}
    return fields


def usage_update(session_id: str, usage: Usage) -> str:
    return encode(
        acp.update(session_id, {"sessionUpdate": "usage_update", "used": usage.used, "size": usage.size})
    )


def commands_update(session_id: str, catalog: Catalog, role: Role) -> str:
    """Tell which commands this role may run."""
    commands = []
    for command in catalog.visible(role):
        about: dict[str, Any] = {"name": command.name, "description": command.description or command.usage}
        if hint := catalog.hint(command):
            about["input"] = {"hint": hint}
        commands.append(about)
    body = {"sessionUpdate": "available_commands_update", "availableCommands": commands}
    return encode(acp.update(session_id, body))


def answer(request_id: RequestId, change: Change, reasons: list[str]) -> str:
    """Return the answer to the prompt that this outcome ends. `reasons` are those of the drain."""
    if change.work == "exec":
        return _exec_answer(request_id, change, reasons)
    match change.state:
        case "completed":
            return encode(result(request_id, {"stopReason": change.stop_reason or "end_turn"}))
        case "cancelled":
            return encode(result(request_id, {"stopReason": "cancelled"}))
        case "interrupted":
            why = f"the turn was interrupted: {change.reason}"
            return encode(error(request_id, problem("interrupted", why, admitted=True)))
    facts = change.facts or {}
    message = facts.get("message") or "the turn failed"
    reason = change.reason if change.reason in _FAILED else "failed"
    message = _FAILED.get(reason or "", message) or message
    again = facts.get("retryAfterMs")
    return encode(error(request_id, problem(reason or "failed", message, admitted=True, retry_after_ms=again)))


#: Why a turn can fail, and what to say where the turn itself says nothing.
_FAILED: Mapping[str, str] = MappingProxyType(
    {
        "internal": "",
        "failed": "",
        "backend_unavailable": "",
        "store_unavailable": "",
        "turn_idle": "the agent said nothing for too long",
        "turn_too_long": "the turn took too long",
    }
)


def _exec_answer(request_id: RequestId, change: Change, reasons: list[str]) -> str:
    if change.reason == "draining":
        why = "the gateway goes down; the command waited for a slot and was not run"
        fault = problem("draining", why, admitted=False, extra={"reasons": reasons})
        return encode(error(request_id, fault))
    return encode(result(request_id, {"stopReason": change.stop_reason, "_meta": {acp.OURS: change.facts}}))
