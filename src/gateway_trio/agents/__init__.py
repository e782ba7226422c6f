"""What an agent is: one async function that turns a prompt into emissions.

    class Agent(Protocol):
        async def run(self, turn: Turn, emit: Emit) -> None: ...
        async def probe(self) -> None: ...  # optional

An agent leaves `run` in one of these ways:

* it returns: the turn is `completed`; if it emitted `Stop("max_tokens")`, cut short by the model's limit;
* `BackendUnavailable`: the model could not be reached; the user may try again. Several of these, with no turn
  completed between them, stop new turns until the model answers again: `probe`, if there is one, finds out;
* `BackendRejected`: the model refused this request or this key; shown as it is, counts for nothing;
* `AgentError`: a sentence for the user;
* anything else: logged with its traceback and shown as an internal error.

Where somebody must allow what it is about to do, it asks with `turn.ask_permission`.

It is cancelled through its scope and should let `trio.Cancelled` pass. One that does not costs its own turn
only: after `cleanup_seconds` the turn is recorded without it, and its next `emit` or `ask_permission` raises
`TurnOver`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import trio
from attrs import Attribute, field, frozen
from attrs.validators import deep_iterable, ge, in_, instance_of, le, optional

from gateway_trio.core.permission import ALLOW_OR_REJECT, LAPSED, Decision, PermissionOption

__all__ = [
    "ALLOW_OR_REJECT",
    "Agent",
    "AgentError",
    "AgentUnusable",
    "AskPermission",
    "BackendRejected",
    "BackendUnavailable",
    "Decision",
    "Emission",
    "Emit",
    "HistoryItem",
    "PermissionOption",
    "Plan",
    "ProbedAgent",
    "Stop",
    "TextDelta",
    "ThoughtDelta",
    "ToolCall",
    "ToolUpdate",
    "Turn",
    "TurnOver",
    "Usage",
    "unavailable_in",
]


class AgentError(Exception):
    """The agent could not do it; the message is for the user."""


class AgentUnusable(Exception):
    """The agent that the config names cannot be made: an extra is not installed, a key is not set."""


class BackendRejected(AgentError):
    """The model's provider refused: a bad key, a bad request."""


class BackendUnavailable(AgentError):
    """The model could not be reached, or broke off. `retry_after_seconds`: what it asked for, None if nothing."""

    retry_after_seconds: float | None = None

    def __init__(
        self, message: str = "the model cannot be reached", *, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class TurnOver(Exception):
    """Raised by `emit` and `ask_permission` once the turn has its outcome: whoever still runs was given up."""


def _is_mapping(_of: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{attribute.name}: a mapping, not {type(value).__name__}")


@frozen
class TextDelta:
    """More of the answer. TypeError for a `text` that is none."""

    text: str = field(validator=instance_of(str))


@frozen
class ThoughtDelta:
    """More of what the agent thinks aloud; not part of the answer and in no history. TypeError likewise."""

    text: str = field(validator=instance_of(str))


@frozen
class ToolCall:
    """A tool call begins. `kind` and `status` are ACP's words; `extra` are further ACP fields as they are.

    TypeError for one whose fields are of another type: it would be in the session for good.
    """

    id: str = field(validator=instance_of(str))
    title: str = field(validator=instance_of(str))
    kind: str = field(default="other", validator=instance_of(str))
    status: str = field(default="pending", validator=instance_of(str))
    extra: Mapping[str, Any] = field(factory=dict, validator=_is_mapping)


@frozen
class ToolUpdate:
    """A tool call goes on; None means unchanged. TypeError as for a `ToolCall`."""

    id: str = field(validator=instance_of(str))
    status: str | None = field(default=None, validator=optional(instance_of(str)))
    title: str | None = field(default=None, validator=optional(instance_of(str)))
    extra: Mapping[str, Any] = field(factory=dict, validator=_is_mapping)


@frozen
class Plan:
    """The agent's plan, whole; `entries` are ACP plan entries (content, priority, status).

    TypeError for entries that are no mappings.
    """

    entries: tuple[Mapping[str, str], ...] = field(converter=tuple, validator=deep_iterable(_is_mapping))


#: Tokens. Up to here every whole number is one in any client's JSON.
_MOST_TOKENS = 2**53


@frozen
class Usage:
    """Tokens in the context now, and how many fit. Told to whoever is connected, not stored.

    TypeError for what is no whole number, ValueError for one under 0 or over 2**53.
    """

    used: int = field(validator=[instance_of(int), ge(0), le(_MOST_TOKENS)])
    size: int = field(validator=[instance_of(int), ge(0), le(_MOST_TOKENS)])


@frozen
class Stop:
    """Why the answer ends where it ends, in ACP's words. Without it that is `end_turn`."""

    reason: Literal["end_turn", "max_tokens"] = field(validator=in_(("end_turn", "max_tokens")))


Emission = TextDelta | ThoughtDelta | ToolCall | ToolUpdate | Plan | Usage | Stop
Emit = Callable[[Emission], Awaitable[None]]
AskPermission = Callable[[ToolCall, Sequence[PermissionOption]], Awaitable[Decision]]


@frozen
class HistoryItem:
    """An earlier prompt (`role` is `user`) or answer (`assistant`); `interrupted` marks one that was cut."""

    role: str
    text: str
    interrupted: bool = False


_T = TypeVar("_T")


async def _nobody(_tool: ToolCall, _options: Sequence[PermissionOption]) -> Decision:
    await trio.lowlevel.checkpoint()
    return LAPSED


@frozen(eq=False)
class Turn:
    """What an agent gets of the prompt that it answers.

    One that a test makes by hand has nobody to ask for permission: its requests lapse at once.
    """

    session_id: str
    id: str
    text: str
    blocks: tuple[Mapping[str, Any], ...]
    #: Of this conversation, read when you ask for it; the newest are `history[-n:]`.
    history: Sequence[HistoryItem]
    principal: str
    draining: trio.Event  #: set when a restart or a shutdown has begun: cut yourself short if you can
    _limiter: trio.CapacityLimiter
    _ask_permission: AskPermission = _nobody

    async def ask_permission(
        self, tool: ToolCall, options: Sequence[PermissionOption] = ALLOW_OR_REJECT
    ) -> Decision:
        """Ask everyone in the session whether this tool call may be made; return how that was decided.

        The first who selects an option decides, over ACP or with `/allow` and `/deny`. A request lapses when
        the session had no client for `[session] permission_seconds`, and is `cancelled` with its turn. Only
        `decision.allowed` is a yes. The wait does not count for `turn_idle_seconds`, but for `turn_seconds`. At
        most 16 requests of a turn are open; a further one waits until one of them has ended.

        Args:
            tool: what it is about; `title` is what people read. It may have been emitted before, or be emitted
                later, under the same id.
            options: what may be answered, 1 to 16, each with an id of its own.

        Raises `TurnOver` once the turn has its outcome, `AgentError` for a request that no frame or store would
        take, ValueError for options among which nobody could choose, and TypeError for what is no tool call, no
        option or no JSON. Cancelling ends the request, for everyone who was asked, as `cancelled`.

        """
        return await self._ask_permission(tool, options)

    async def run_sync(self, function: Callable[..., _T], *args: Any) -> _T:
        """Run a blocking function in a thread that does not count against Trio's default limiter.

        Starting processes needs that one. Cancelling waits for the function, as a thread cannot be stopped.
        """
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)


class Agent(Protocol):
    """Answers prompts. One object serves all sessions; `run` may run many times at once."""

    async def run(self, turn: Turn, emit: Emit) -> None:
        """Answer the prompt of `turn` through `emit`, which may wait for the store, never for a client."""


@runtime_checkable
class ProbedAgent(Agent, Protocol):
    """An agent that can find out whether its backend answers, without a prompt."""

    async def probe(self) -> None:
        """Return if the backend answers; raise `BackendUnavailable` if not.

        Called while the gateway drains because the backend failed, one at a time, and cancelled after as many
        seconds as were waited before it (`[breaker] probe_seconds`, doubled up to 60). Anything else that it
        raises is logged, and counts as an answer: the next prompt tells.
        """


def unavailable_in(error: BaseException | None) -> BackendUnavailable | None:
    """Return the first `BackendUnavailable` that an error is, or holds as a group; None if there is none."""
    if isinstance(error, BackendUnavailable):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(unavailable_in, error.exceptions)), None)
    return None
