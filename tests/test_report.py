"""The report of a drain: its numbers add up, and what it calls overhead is what the gateway itself took."""

import json

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_trio.core.phases import Asked, Phase, Reason, State
from gateway_trio.core.session import TurnState
from gateway_trio.report import Timeline
from gateway_trio.testing import ScriptedAgent, open_gateway, ours_of

S = TurnState
DOWN = State(Phase.CLOSED, {Reason.SHUTDOWN: Asked("SIGTERM", 0.0)})


class Script:
    """Plays a timeline: each line is the moment and what happens."""

    def __init__(self, clock):
        self.clock = clock
        self.start = trio.current_time()
        self.timeline = Timeline()

    def at(self, moment, what, *args, **more):
        self.clock.jump(self.start + moment - trio.current_time())
        return getattr(self.timeline, what)(*args, **more)


async def test_a_whole_drain(mock_clock):
    play = Script(mock_clock)
    play.at(0, "begin", turns=2, execs=1)
    play.at(0.1, "noticed")
    play.at(0.2, "noticed")
    play.at(10, "turn_stopped")
    play.at(10.05, "turn_ended", S.COMPLETED, ran=True)
    play.at(20, "entered", Phase.CANCELLING)
    play.at(20, "turn_ended", S.INTERRUPTED, ran=False)
    play.at(21, "turn_stopped")
    play.at(21.25, "turn_ended", S.INTERRUPTED, ran=True)
    play.at(21.3, "entered", Phase.FINISHING)
    play.at(25, "exec_ended", killed=False)
    play.at(25.4, "entered", Phase.CLOSING)
    play.at(25.5, "said_goodbye")
    play.at(26, "socket_ended", clean=True)
    play.at(26, "sockets_gone")
    report = play.at(26.2, "report", DOWN, cut=False)
    assert report.to_json() == {
        "reason": "shutdown",
        "asked_by": "SIGTERM",
        "phases": {"draining": 20.0, "cancelling": 1.3, "finishing": 4.1, "closing": 0.8},
        "turns_running": 2,
        "turns_finished": 1,
        "turns_interrupted": 1,
        "turns_queued": 1,
        "turns_abandoned": (),
        "execs_running": 1,
        "execs_finished": 1,
        "execs_killed": 0,
        "connections_told": 1,
        "connections_closed": 1,
        "connections_forced": 0,
        "notice_seconds": 0.1,
        "total_seconds": 26.2,
        # 0.3 to record the last turn, 0.4 from the last exec, 0.1 to say goodbye, 0.2 from the last socket
        "overhead_seconds": 1.0,
        "cut": False,
    }
    json.dumps(report.to_json())


async def test_where_nothing_runs_all_of_it_is_overhead(mock_clock):
    play = Script(mock_clock)
    play.at(0, "begin", turns=0, execs=0)
    for moment, phase in ((0.1, Phase.CANCELLING), (0.2, Phase.FINISHING), (0.3, Phase.CLOSING)):
        play.at(moment, "entered", phase)
    play.at(0.3, "sockets_gone")
    report = play.at(0.5, "report", DOWN, cut=False)
    assert report.total_seconds == report.overhead_seconds == 0.5
    assert report.notice_seconds == 0.0


async def test_waiting_for_a_socket_that_takes_nothing_is_no_overhead(mock_clock):
    play = Script(mock_clock)
    play.at(0, "begin", turns=0, execs=0)
    play.at(0, "entered", Phase.CANCELLING)
    play.at(0, "entered", Phase.FINISHING)
    play.at(0, "entered", Phase.CLOSING)
    play.at(0.25, "said_goodbye")
    play.at(3, "sockets_gone")
    play.at(3, "socket_ended", clean=False)
    report = play.at(3, "report", DOWN, cut=False)
    assert (report.overhead_seconds, report.connections_forced) == (0.25, 1)


async def test_an_exec_that_is_killed_in_closing_is_waited_for(mock_clock):
    play = Script(mock_clock)
    play.at(0, "begin", turns=0, execs=1)
    play.at(0, "entered", Phase.CANCELLING)
    play.at(0, "entered", Phase.FINISHING)
    play.at(25, "entered", Phase.CLOSING)
    play.at(27, "exec_ended", killed=True)
    play.at(27.5, "sockets_gone")
    report = play.at(27.5, "report", DOWN, cut=False)
    assert (report.execs_killed, report.execs_finished) == (1, 0)
    assert report.overhead_seconds == 0.0


async def test_abandoned_bodies_are_named_until_they_end(mock_clock):
    play = Script(mock_clock)
    play.at(0, "turn_abandoned", "t1")
    play.at(0, "turn_abandoned", "t2")
    play.at(1, "begin", turns=0, execs=0)
    play.at(2, "turn_let_go", "t1")
    play.at(2, "turn_let_go", "t3")
    assert play.at(3, "report", DOWN, cut=False).turns_abandoned == ("t2",)


async def test_what_was_before_a_drain_is_not_in_it(mock_clock):
    """A restart that was taken back, work in between, and then the drain that is reported."""
    play = Script(mock_clock)
    play.at(0, "entered", Phase.OPEN)
    play.at(5, "begin", turns=3, execs=3)
    play.at(5, "noticed")
    play.at(6, "turn_stopped")
    play.at(6, "turn_ended", S.COMPLETED, ran=True)
    play.at(6, "exec_ended", killed=True)
    play.at(7, "said_goodbye")
    play.at(7, "entered", Phase.OPEN)
    play.at(90, "socket_ended", clean=True)
    play.at(100, "begin", turns=0, execs=0)
    play.at(100, "noticed")
    play.at(101, "entered", Phase.CANCELLING)
    report = play.at(102, "report", DOWN, cut=False)
    assert report.phases == {"draining": 1.0, "cancelling": 1.0}
    assert (report.total_seconds, report.overhead_seconds, report.notice_seconds) == (2.0, 2.0, 0.0)
    counted = (report.turns_finished, report.execs_killed, report.connections_told, report.connections_closed)
    assert counted == (0, 0, 0, 0)


async def test_the_reason_is_the_shutdowns_where_both_stand(mock_clock):
    both = State(Phase.CLOSED, {Reason.RESTART: Asked("alice", 0.0), Reason.SHUTDOWN: Asked("SIGTERM", 1.0)})
    restart = State(Phase.CLOSED, {Reason.RESTART: Asked("alice", 0.0), Reason.OPERATOR: Asked("bob", 1.0)})
    timeline = Timeline()
    timeline.begin(turns=0, execs=0)
    found = [timeline.report(state, cut=False) for state in (both, restart)]
    assert [(r.reason, r.asked_by) for r in found] == [("shutdown", "SIGTERM"), ("restart", "alice")]


async def test_a_tree_that_was_cut_before_any_drain_has_a_report_too(mock_clock):
    timeline = Timeline()
    timeline.entered(Phase.CLOSED)
    report = timeline.report(State(Phase.CLOSED), cut=True)
    assert (report.cut, report.total_seconds, report.overhead_seconds, report.asked_by) == (True, 0.0, 0.0, "")


async def test_a_restart_that_was_taken_back_leaves_nothing_in_the_next_report(mock_clock):
    play = Script(mock_clock)
    play.at(0, "begin", turns=3, execs=1)
    play.at(5, "take_back")
    play.at(6, "entered", Phase.OPEN)
    play.at(10, "begin", turns=0, execs=0)
    play.at(12, "entered", Phase.CANCELLING)
    report = play.at(13, "report", DOWN, cut=False)
    assert (report.turns_running, report.execs_running) == (0, 0)
    assert (report.total_seconds, dict(report.phases)) == (3, {"draining": 2, "cancelling": 1})


async def test_what_a_durable_store_keeps_is_counted_as_queued(mock_clock):
    play = Script(mock_clock)
    play.at(0, "begin", turns=0, execs=0)
    play.at(0, "turn_left_queued")
    assert play.at(1, "report", DOWN, cut=False).turns_queued == 1


_happens = st.sampled_from(["turn_stopped", "exec", "noticed", "said_goodbye", "socket", "phase", "sockets_gone"])
_PHASES = (Phase.CANCELLING, Phase.FINISHING, Phase.CLOSING, Phase.CLOSED)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.floats(0, 5), _happens), max_size=25))
def test_whatever_happens_the_phases_add_up_and_overhead_is_a_part_of_it(steps):
    async def run():
        clock = mock
        play, now, left = Script(clock), 0.0, list(_PHASES)
        play.at(0, "begin", turns=0, execs=0)
        for seconds, what in steps:
            now += seconds
            match what:
                case "phase":
                    play.at(now, "entered", left.pop(0)) if left else None
                case "exec":
                    play.at(now, "exec_ended", killed=False)
                case "socket":
                    play.at(now, "socket_ended", clean=True)
                case _:
                    play.at(now, what)
        return play.at(now, "report", DOWN, cut=False), left

    mock = trio.testing.MockClock()
    report, left = trio.run(run, clock=mock)
    if left:
        assert sum(report.phases.values()) == pytest.approx(report.total_seconds, abs=1e-4)
    assert 0 <= report.overhead_seconds <= report.total_seconds
    assert all(seconds >= 0 for seconds in report.phases.values())


async def test_a_real_drain_adds_up(autojump_clock):
    """Three turns: one ends within the grace, one is cut, one waits behind it; two clients are told."""
    agent = ScriptedAgent({"short": ["a", 3.0, "b"], "long": ["a", 500.0]})
    with trio.fail_after(1000):
        async with open_gateway(agent=agent) as lab:
            first, second = await lab.acp(), await lab.acp()
            one, two = await first.new_session(), await second.new_session()
            await first.ask_prompt(one, "short")
            await second.ask_prompt(two, "long")
            await first.until_state("running")
            await second.until_state("running")
            await second.ask_prompt(two, "waits", key="w")
            await second.until(lambda frame: ours_of(frame).get("turn", {}).get("key") == "w")
            lab.gateway.drain("shutdown", by="test", grace_seconds=10)
            await lab.gateway.closed.wait()
            report = lab.gateway.report
    assert (report.turns_running, report.turns_finished, report.turns_interrupted, report.turns_queued) == (
        2,
        1,
        1,
        1,
    )
    assert (report.connections_told, report.connections_closed, report.connections_forced) == (2, 2, 0)
    assert report.phases["draining"] == pytest.approx(10.0)
    assert sum(report.phases.values()) == pytest.approx(report.total_seconds)
    assert report.overhead_seconds == pytest.approx(0.0, abs=0.5)
    assert not report.cut


async def test_a_client_that_leaves_by_itself_in_a_drain_was_not_closed_by_force(autojump_clock):
    agent = ScriptedAgent({"long": ["a", 5.0]})
    with trio.fail_after(1000):
        async with open_gateway(agent=agent) as lab:
            stays, leaves = await lab.acp(), await lab.acp()
            session = await stays.new_session()
            await stays.ask_prompt(session, "long")
            await stays.until_state("running")
            lab.gateway.drain("shutdown", by="test", grace_seconds=10)
            await leaves.websocket.aclose()
            await lab.gateway.closed.wait()
            report = lab.gateway.report
    assert (report.connections_told, report.connections_closed, report.connections_forced) == (1, 1, 0)
