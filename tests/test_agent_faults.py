"""An agent is other people's code: whatever it raises costs its own turn, and nobody else anything."""

import asyncio

import pytest
import trio

from gateway_trio.agents import AgentError, BackendUnavailable
from gateway_trio.agents.faults import MESSAGE_CHARS, Held, said_by
from gateway_trio.testing import AcpError, ScriptedAgent, open_gateway

LIMIT = 600  # virtual seconds


class Unsayable(AgentError):
    def __str__(self):
        raise ZeroDivisionError


class Mute(AgentError):
    def __str__(self):
        return None  # noqa: PLE0307 - as somebody may


class Hasty(BackendUnavailable):
    def __init__(self):
        """Without that of the class that it is made from."""


class OwnEnd(BaseException):
    pass


async def fails_alone(agent_raises, reason, message=None):
    """A turn raises that, another one runs on; the first is told why, and so is who loads the session later."""

    async def fail(*_):
        raise agent_raises

    agent = ScriptedAgent({"bad": [1, fail], "good": ["well", 5, " done"]})
    with trio.fail_after(LIMIT):
        async with open_gateway(agent=agent) as lab:
            good, bad = await lab.acp(), await lab.acp()
            other = await good.ask_prompt(await good.new_session(), "good")
            session = await bad.new_session()
            with pytest.raises(AcpError) as caught:
                await bad.prompt(session, "bad")
            assert caught.value.reason == reason
            assert message is None or message in str(caught.value)
            assert (await good.answer(other))["stopReason"] == "end_turn"
            assert good.text() == "well done"
            later = await lab.acp()
            await later.call("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
            return [*bad.frames, *later.frames]


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(2), GeneratorExit(), asyncio.CancelledError(), OwnEnd("x"), ValueError("x"),
        BaseExceptionGroup("", [ValueError("x"), SystemExit(1)]),
    ],
    ids=repr,
)  # fmt: skip
async def test_what_is_no_fault_that_we_know_is_an_internal_error(error, autojump_clock):
    await fails_alone(error, "internal")


@pytest.mark.parametrize(
    ("error", "message"), [(Unsayable(), "Unsayable"), (Mute(), "Mute"), (AgentError(), "AgentError")]
)
async def test_one_that_cannot_say_what_it_is_is_told_by_its_class(error, message, autojump_clock):
    await fails_alone(error, "failed")
    assert said_by(error) == message


@pytest.mark.parametrize(
    "after", ["30", 10**400, float("nan"), -1, [3], None], ids=["text", "huge", "nan", "below", "list", "none"]
)
async def test_a_time_to_wait_that_is_none_is_not_told(after, autojump_clock):
    await fails_alone(BackendUnavailable("gone", retry_after_seconds=after), "backend_unavailable")


async def test_one_that_was_made_in_its_own_way(autojump_clock):
    await fails_alone(Hasty(), "backend_unavailable")


async def test_a_long_message_is_cut_and_fits_into_every_frame(autojump_clock):
    frames = await fails_alone(AgentError("😀" * 400_000), "failed")
    assert max(len(str(frame)) for frame in frames) < 4 * MESSAGE_CHARS
    assert said_by(AgentError("x" * MESSAGE_CHARS)) == "x" * MESSAGE_CHARS
    assert len(said_by(AgentError("x" * (MESSAGE_CHARS + 1)))) == MESSAGE_CHARS


class Probed(ScriptedAgent):
    def __init__(self, *errors):
        super().__init__({"bad": [BackendUnavailable("down")]})
        self._errors = list(errors)

    async def probe(self):
        if self._errors:
            raise self._errors.pop(0)


async def test_a_probe_costs_nobody_anything_either(autojump_clock):
    agent = Probed(
        BackendUnavailable("x", retry_after_seconds="5"), BackendUnavailable(Unsayable()), Hasty(), SystemExit(1)
    )
    with trio.fail_after(LIMIT):
        async with open_gateway(agent=agent) as lab:
            client = await lab.acp()
            session = await client.new_session()
            for _ in range(5):
                with pytest.raises(AcpError):
                    await client.prompt(session, "bad")
            assert lab.gateway.phase.value == "draining"
            await trio.sleep(300)
            assert agent._errors == []
            assert lab.gateway.phase.value == "open"
            await client.prompt(session, "good")


async def test_a_cancel_goes_on_its_way_and_what_came_with_it_is_held():
    held = Held()
    with trio.CancelScope() as scope:
        with held:
            async with trio.open_nursery(strict_exception_groups=True) as nursery:
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError
        pytest.fail("the cancel was held")
    assert scope.cancelled_caught
    assert isinstance(held.error.exceptions[0], ValueError)


@pytest.mark.parametrize("group", [False, True])
def test_an_interrupt_goes_on_its_way(group):
    raised = BaseExceptionGroup("", [KeyboardInterrupt()]) if group else KeyboardInterrupt()
    held = Held()
    with pytest.raises(BaseException) as caught, held:
        raise raised
    assert caught.value is raised or caught.value.exceptions == raised.exceptions
    assert held.error is None
