"""The breaker's shell: when it drains and probes, in virtual time, and what clients are told."""

from __future__ import annotations

import contextlib

import pytest
import trio

from gateway_trio import BackendUnavailable, Config
from gateway_trio.agents import AgentError, BackendRejected, TextDelta, unavailable_in
from gateway_trio.config import BreakerConfig, SessionConfig
from gateway_trio.core.phases import Phase
from gateway_trio.testing import STUCK, AcpError, ScriptedAgent
from memory import acp_lab

DOWN = BackendUnavailable("503 from the model")
LIMIT = 3600


class NoProbe:
    """An agent that has no probe: `down` says whether its model answers."""

    def __init__(self):
        self.down = True
        self.ran: list[float] = []

    async def run(self, turn, emit):
        self.ran.append(trio.current_time())
        if self.down:
            raise DOWN
        await emit(TextDelta(turn.text))


def failing(*probes, why=DOWN, **scripts):
    return ScriptedAgent({"down": [why], **scripts}, probes=probes)


def now() -> float:
    return trio.current_time()


def about(seconds):
    return pytest.approx(seconds, abs=1e-6)


@contextlib.asynccontextmanager
async def lab_of(agent, config=None, **more):
    async with acp_lab(config, agent=agent, limit=LIMIT, **more) as lab:
        yield lab, await lab.acp()


async def refusal(client, session, text) -> AcpError:
    with pytest.raises(AcpError) as caught:
        await client.prompt(session, text)
    return caught.value


async def fail(client, session, count=5, text="down"):
    for _ in range(count):
        assert (await refusal(client, session, text)).code == -32016


def stand(lab) -> tuple[str, int | None]:
    breaker = lab.gateway.status()["breaker"]
    return breaker["state"], breaker["nextProbeMs"]


async def until_phase(client, phase, count=1):
    """Wait until so many notices of this phase have come."""
    seen = 0

    def is_it(frame):
        nonlocal seen
        seen += frame.get("method") == "_gateway-trio/phase" and frame["params"]["phase"] == phase
        return seen == count

    await client.until(is_it)


async def test_the_last_of_so_many_failures_drains_and_a_probe_ends_that(autojump_clock):
    agent = failing([DOWN], [1.0])
    async with lab_of(agent) as (lab, client):
        session = await client.new_session()
        await fail(client, session, 4)
        assert (lab.gateway.phase, stand(lab)) == (Phase.OPEN, ("closed", None))
        await fail(client, session, 1)
        opened = now()
        assert (lab.gateway.phase, stand(lab)) == (Phase.DRAINING, ("open", 5000))
        asked = lab.gateway.status()["asked"]["backend"]
        assert (asked["by"], asked["why"]) == ("breaker", "503 from the model")
        await trio.sleep(1)
        refused = await refusal(client, session, "hello")
        assert (refused.code, refused.reason, refused.data["reasons"]) == (-32010, "draining", ["backend"])
        assert (refused.data["admitted"], refused.data["retryable"]) == (False, True)
        assert refused.data["retryAfterMs"] == 4000
        await until_phase(client, "open", 2)
        assert [at - opened for at in agent.probed] == [about(5), about(15)]
        assert now() - opened == about(16)
        assert stand(lab) == ("half-open", None)
        assert await client.prompt(session, "hello") == {"stopReason": "end_turn"}
        assert stand(lab) == ("closed", None)
        phases = [(p["phase"], p["reasons"]) for p in client.phases()]
        assert phases == [("open", []), ("draining", ["backend"]), ("open", [])], "one notice per change"
    assert len(agent.turns) == 6, "what was refused reached no agent"


async def test_half_open_the_next_failure_drains_again_at_once(autojump_clock):
    agent = failing()
    async with lab_of(agent) as (lab, client):
        session = await client.new_session()
        await fail(client, session)
        await until_phase(client, "open", 2)
        await fail(client, session, 1)
        opened = now()
        assert (lab.gateway.phase, stand(lab)) == (Phase.DRAINING, ("open", 10_000))
        await until_phase(client, "open", 3)
        assert now() - opened == about(10)
        await client.prompt(session, "fine")
        await fail(client, session, 4)
        assert lab.gateway.phase is Phase.OPEN, "what was before is forgotten"


async def test_without_a_probe_its_time_counts_as_one(autojump_clock):
    agent = NoProbe()
    async with lab_of(agent) as (_lab, client):
        session = await client.new_session()
        await fail(client, session)
        waits = []
        for round_ in range(2, 7):
            closed = now()
            await until_phase(client, "open", round_)
            waits.append(now() - closed)
            await fail(client, session, 1)
        assert waits == [about(seconds) for seconds in (5, 10, 20, 40, 60)]
        assert len(agent.ran) == 10


@pytest.mark.parametrize("error", [BackendRejected("401"), AgentError("no"), RuntimeError("a bug"), 3.0])
async def test_what_counts_for_nothing(error, autojump_clock):
    """Case 63: not a rejection, not an agent's own fault, not a bug, not a turn that took too long."""
    agent = ScriptedAgent({"x": [error], "down": [DOWN]})
    async with lab_of(agent, Config(session=SessionConfig(turn_seconds=1))) as (lab, client):
        session = await client.new_session()
        for _ in range(10):
            assert (await refusal(client, session, "x")).code == -32603
        assert stand(lab) == ("closed", None)
        await fail(client, session, 2)
        assert (await refusal(client, session, "x")).code == -32603
        await fail(client, session, 3)
        assert stand(lab)[0] == "open", "nor is it a success"


async def test_a_turn_that_was_cancelled_counts_for_nothing(autojump_clock):
    async def breaks_off(turn, emit):
        try:
            await trio.sleep_forever()
        finally:
            raise DOWN  # as a library does whose connection is closed under it

    agent = ScriptedAgent({"long": [breaks_off]})
    async with lab_of(agent, Config(breaker=BreakerConfig(failures=1))) as (lab, client):
        session = await client.new_session()
        id_ = await client.ask_prompt(session, "long")
        await client.until(lambda _: agent.running)
        await client.notify("session/cancel", {"sessionId": session})
        assert await client.answer(id_) == {"stopReason": "cancelled"}
        assert stand(lab) == ("closed", None)
        await client.prompt(session, "hello")


async def test_a_failure_within_a_group_is_one(autojump_clock):
    nested = ExceptionGroup("", [ValueError(), ExceptionGroup("", [DOWN])])
    assert unavailable_in(nested) is DOWN
    assert unavailable_in(ExceptionGroup("", [ValueError()])) is unavailable_in(None) is None
    agent = failing([nested], why=nested)
    async with lab_of(agent, Config(breaker=BreakerConfig(failures=1))) as (lab, client):
        await fail(client, await client.new_session(), 1)
        await trio.sleep(6)
        assert stand(lab) == ("open", 9000)


async def test_a_turn_that_ran_on_and_is_completed_ends_the_drain(autojump_clock):
    agent = failing(*[[DOWN]] * 20, long=["a", 30.0, "b"])
    async with lab_of(agent) as (lab, client):
        session, other = await client.new_session(), await client.new_session()
        id_ = await client.ask_prompt(session, "long")
        await fail(client, other)
        assert await client.answer(id_) == {"stopReason": "end_turn"}, "a drain for this cancels nothing"
        assert (lab.gateway.phase, stand(lab)[0]) == (Phase.OPEN, "half-open")
        probed = len(agent.probed)
        await trio.sleep(300)
        assert len(agent.probed) == probed, "and no probe comes any more"


async def test_what_waits_in_a_queue_runs_after_the_drain_and_only_then(autojump_clock):
    agent = failing(slow=[1.0, DOWN])
    async with lab_of(agent, Config(breaker=BreakerConfig(failures=1))) as (_lab, client):
        session = await client.new_session()
        ids = [await client.ask_prompt(session, text) for text in ("slow", "second", "third")]
        with pytest.raises(AcpError):
            await client.answer(ids[0])
        failed = now()
        assert [turn.text for turn in agent.turns] == ["slow"], "the failure is counted before the next one starts"
        for id_ in ids[1:]:
            assert await client.answer(id_) == {"stopReason": "end_turn"}
        assert now() - failed == about(5)


async def test_case_60_two_minutes_of_503(autojump_clock, caplog):
    caplog.set_level("INFO")
    agent = ScriptedAgent({"hello": [DOWN]}, probes=[[DOWN]] * 4)
    async with lab_of(agent) as (lab, client):
        session = await client.new_session()
        await client.prompt(session, "before")
        start, codes = now(), []
        while now() < start + 120:
            asked = now()
            codes.append((await refusal(client, session, "hello")).code)
            assert now() == asked, "at once"
            await trio.sleep(1)
        assert codes == [-32016] * 5 + [-32010] * 115
        del agent.scripts["hello"]
        await until_phase(client, "open", 2)
        assert [at - start for at in agent.probed] == [about(4 + at) for at in (5, 15, 35, 75, 135)]
        assert await client.prompt(session, "hello") == {"stopReason": "end_turn"}
        assert stand(lab) == ("closed", None)
        said = [item.text for item in agent.turns[-1].history if item.role == "assistant"]
        assert said == ["before"], "no session was lost"
    why = [record.why for record in caplog.records if record.getMessage() == "probe failed"]
    assert why == [str(DOWN)] * 4, "and the log says why it is down still"


# --- what the backend asks for (case 62) ----------------------------------------------------------------


async def test_case_62_retry_after_is_shown_and_honoured(autojump_clock):
    slow = BackendUnavailable("429", retry_after_seconds=2)
    agent = failing([BackendUnavailable("429", retry_after_seconds=90)], why=slow)
    async with lab_of(agent) as (lab, client):
        chat = await lab.chat()
        session = await client.new_session()
        for _ in range(5):
            refused = await refusal(client, session, "down")
            assert (refused.code, refused.data["retryAfterMs"], refused.data["admitted"]) == (-32016, 2000, True)
        opened = now()
        assert (await refusal(client, session, "x")).data["retryAfterMs"] == 2000
        await chat.until("· draining (backend)")
        await chat.send("hello")
        assert (await chat.receive()).endswith("(try again in 2 s)")
        await trio.sleep(2.5)
        assert agent.probed == [about(opened + 2)]
        assert (await refusal(client, session, "x")).data["retryAfterMs"] == 89_500
        await chat.send("/status")
        assert "\nbreaker open, the next probe of the backend in 90 s\n" in await chat.receive()
        await until_phase(client, "open", 2)
        assert agent.probed[1:] == [about(opened + 92)]
        await chat.until("· open again")
        await chat.send("down")
        assert "429 (try again in 2 s)" in (await chat.until("· failed"))[-1]


async def test_a_later_failure_moves_the_probe(autojump_clock):
    later = BackendUnavailable("429", retry_after_seconds=30)
    agent = failing(late=[3.0, later])
    async with lab_of(agent) as (lab, client):
        session, other = await client.new_session(), await client.new_session()
        id_ = await client.ask_prompt(other, "late")
        await client.until_state("running")
        started = now()
        await fail(client, session)
        assert stand(lab) == ("open", 5000)
        with pytest.raises(AcpError):
            await client.answer(id_)
        assert stand(lab) == ("open", 30_000)
        await until_phase(client, "open", 2)
        assert agent.probed == [about(started + 33)]


@pytest.mark.parametrize("asked", [None, float("nan"), float("inf"), -1])
async def test_nonsense_is_not_shown(asked, autojump_clock):
    agent = failing(why=BackendUnavailable("429", retry_after_seconds=asked))
    async with lab_of(agent) as (_, client):
        assert "retryAfterMs" not in (await refusal(client, await client.new_session(), "down")).data


async def test_with_another_reason_nobody_knows_when_to_come_again(autojump_clock):
    async with lab_of(failing()) as (lab, client):
        session = await client.new_session()
        await fail(client, session)
        lab.gateway.drain("operator", by="us")
        refused = await refusal(client, session, "x")
        assert (refused.data["reasons"], "retryAfterMs" in refused.data) == (["backend", "operator"], False)
        await trio.sleep(6)
        assert lab.gateway.status()["reasons"] == ["operator"], "its own cause has passed"
        assert stand(lab) == ("half-open", None)


# --- an admin's word ------------------------------------------------------------------------------------


@pytest.mark.parametrize("road", ["chat", "acp", "library"])
async def test_undrain_backend_lets_turns_be_tried(road, autojump_clock):
    agent = failing(*[[DOWN]] * 100)
    async with lab_of(agent) as (lab, client):
        chat = await lab.chat()
        session = await client.new_session()
        await fail(client, session)
        await trio.sleep(40)
        probed = len(agent.probed)
        await chat.until("· draining")
        if road == "chat":
            await chat.send("/undrain backend")
            assert (await chat.until("Open again."))[-1] == "Open again."
        elif road == "acp":
            status = await client.call("_gateway-trio/undrain", {"reason": "backend"})
            assert (status["phase"], status["breaker"]["state"]) == ("open", "half-open")
        else:
            assert lab.gateway.undrain("backend")
            assert not lab.gateway.undrain("backend")
        assert (lab.gateway.phase, stand(lab)) == (Phase.OPEN, ("half-open", None))
        await trio.sleep(100)
        assert len(agent.probed) == probed
        await fail(client, session, 1)
        assert lab.gateway.phase is Phase.DRAINING
        lab.gateway.undrain("backend")
        await client.prompt(session, "fine")
        assert stand(lab) == ("closed", None)


async def test_undrain_in_the_middle_of_a_probe_ends_it(autojump_clock):
    agent = failing([1000.0])
    async with lab_of(agent, Config(breaker=BreakerConfig(failures=1, probe_seconds=30))) as (lab, client):
        session = await client.new_session()
        await fail(client, session, 1)
        await trio.sleep(31)
        assert stand(lab) == ("open", 0)
        assert (await refusal(client, session, "x")).data["retryAfterMs"] == 1000
        lab.gateway.undrain("backend")
        await fail(client, session, 1)
        assert stand(lab) == ("open", 60_000)
        opened = now()
        await until_phase(client, "open", 3)
        assert now() - opened == about(60), "the next opening has a probe of its own"
        assert len(agent.probed) == 2


async def test_half_a_surrogate_pair_in_what_failed_ends_nobodys_connection(autojump_clock):
    half = BackendUnavailable("down \ud83d")
    agent = failing([half], why=half)
    async with lab_of(agent) as (lab, client):
        chat = await lab.chat()
        session = await client.new_session()
        for _ in range(5):
            assert str(await refusal(client, session, "down")) == "down \ufffd"
        for probes in range(2):
            assert len(agent.probed) == probes
            await chat.send("/status")
            assert "down \ufffd" in (await chat.until("down"))[-1]
            assert (await client.call("_gateway-trio/status"))["asked"]["backend"]["why"] == "down \ufffd"
            await trio.sleep(6)


# --- probes that misbehave ------------------------------------------------------------------------------


async def test_a_probe_that_hangs_fails_after_the_wait_before_it(autojump_clock):
    agent = failing([1000.0], [1000.0])
    async with lab_of(agent) as (_lab, client):
        await fail(client, await client.new_session())
        opened = now()
        await until_phase(client, "open", 2)
        assert [at - opened for at in agent.probed] == [about(5), about(5 + 5 + 10), about(20 + 10 + 20)]


@pytest.mark.parametrize("fault", [ValueError("a bug"), BackendRejected("404")])
async def test_a_probe_that_fails_otherwise_is_as_none(fault, autojump_clock):
    agent = failing([fault])
    async with lab_of(agent) as (_lab, client):
        await fail(client, await client.new_session())
        await until_phase(client, "open", 2)
        assert len(agent.probed) == 1


async def test_a_probe_that_ignores_its_cancellation_is_named_and_not_repeated(autojump_clock):
    agent = failing([STUCK])
    async with lab_of(agent) as (lab, client):
        await fail(client, await client.new_session())
        await trio.sleep(100)
        assert len(agent.probed) == 1, "one at a time"
        assert lab.gateway.status()["abandoned"] == ["probe"]
        assert stand(lab)[0] == "open", "the backoff goes on"
        agent.release()
        await until_phase(client, "open", 2)
        assert len(agent.probed) == 2
        assert lab.gateway.status()["abandoned"] == []


async def test_a_probe_that_ends_late_tells_nothing_of_the_next_opening(autojump_clock):
    agent = failing([STUCK])
    async with lab_of(agent, Config(breaker=BreakerConfig(failures=1))) as (lab, client):
        session = await client.new_session()
        await fail(client, session, 1)
        await trio.sleep(12)  # its time was over at 10, and until 15 it may clean up
        lab.gateway.undrain("backend")
        await fail(client, session, 1)
        await trio.sleep(4)
        assert lab.gateway.status()["abandoned"] == ["probe"]
        assert stand(lab) == ("open", 6000)
        agent.release()
        await until_phase(client, "open", 3)


# --- going down while the backend fails -----------------------------------------------------------------


@pytest.mark.parametrize("reason", ["shutdown", "restart"])
@pytest.mark.parametrize("when", ["before a probe", "in a probe", "in a stuck probe"])
async def test_the_way_down_keeps_its_deadlines(when, reason, autojump_clock):
    stuck = when == "in a stuck probe"
    probe = {"before a probe": [], "in a probe": [1000.0], "in a stuck probe": [STUCK]}[when]
    agent = failing(probe, long=["a", STUCK if stuck else 1000.0])
    async with lab_of(agent, Config(breaker=BreakerConfig(probe_seconds=30))) as (lab, client):
        session, other = await client.new_session(), await client.new_session()
        id_ = await client.ask_prompt(other, "long")
        await fail(client, session)
        await trio.sleep(4 if when == "before a probe" else 31)
        lab.gateway.drain(reason, by="us")
        refused = await refusal(client, session, "x")
        assert (refused.data["reasons"], "retryAfterMs" in refused.data) == (sorted(["backend", reason]), False)
        began = now()
        with pytest.raises(AcpError) as caught:
            await client.answer(id_)
        assert caught.value.reason == "interrupted"
        await lab.gateway.closed.wait()
        assert now() - began == about(20 + 5 * stuck), "the grace, and one cleanup for all that is stuck"
        report = lab.gateway.report
        assert (report.reason, report.cut) == (reason, False)
        assert len(report.turns_abandoned) == 2 * stuck
        assert ("probe" in report.turns_abandoned) == stuck
        assert len(agent.probed) == (when != "before a probe"), "and none begins on the way down"
        assert (await client.code()) == 1012
        agent.release()


async def test_a_recovery_in_a_shutdown_opens_nothing(autojump_clock):
    agent = failing(long=["a", 15.0, "b"])
    async with lab_of(agent) as (lab, client):
        session, other = await client.new_session(), await client.new_session()
        id_ = await client.ask_prompt(other, "long")
        await fail(client, session)
        lab.gateway.drain("shutdown", by="us")
        await trio.sleep(6)
        assert agent.probed
        assert stand(lab) == ("half-open", None)
        assert (lab.gateway.phase, lab.gateway.status()["reasons"]) == (Phase.DRAINING, ["shutdown"])
        refused = await refusal(client, session, "x")
        assert refused.data["reasons"] == ["shutdown"]
        assert await client.answer(id_) == {"stopReason": "end_turn"}
        await lab.gateway.closed.wait()
        assert [p["phase"] for p in client.phases()].count("open") == 1


async def test_a_restart_that_is_taken_back_leaves_the_failing_backend(autojump_clock):
    agent = failing(long=["a", 100.0])
    async with lab_of(agent) as (lab, client):
        session, other = await client.new_session(), await client.new_session()
        await client.ask_prompt(other, "long")
        await fail(client, session)
        await client.prompt(session, "/restart")
        assert lab.gateway.status()["reasons"] == ["backend", "restart"]
        await client.prompt(session, "/undrain")
        assert (lab.gateway.phase, lab.gateway.status()["reasons"]) == (Phase.DRAINING, ["backend"])
        await until_phase(client, "open", 2)
        assert len(agent.probed) == 1
