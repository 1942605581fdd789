"""The state machine of rollouts, driven by anything that can happen to it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain import rollout as machine
from controlplane.domain.errors import PreconditionError, Reason
from controlplane.domain.gate import FailureAction, GateOutcome, GatePolicy, GateVerdict
from controlplane.domain.ids import AgentId, RolloutId
from controlplane.domain.rollout import (
    ACTIVE_STATES,
    TRANSITIONS,
    Decision,
    Progress,
    Rollout,
    RolloutState,
    RolloutStrategy,
    SetVersion,
    WaveSize,
    WaveState,
    exposed_agents,
    open_wave,
    step,
)
from controlplane.domain.wave import EVERYBODY, enlist, plan_waves
from tests.domain import strategies
from tests.support.factories import NOW, after_seconds, make_deployment, make_verdict

Command = Callable[[Rollout, datetime], Decision]
COMMANDS: tuple[Command, ...] = (machine.pause, machine.resume, machine.retry, machine.abort, machine.rollback)
AGENTS = tuple(AgentId(f"st-{number}") for number in range(1, 7))
NOTHING = Progress()
FROZEN = frozenset(RolloutState) - {RolloutState.RUNNING}
"""States in which no agent may be exposed anew."""


def make_started(on_failure: FailureAction = FailureAction.ROLLBACK, waves: int = 3) -> Rollout:
    sizes = (*(WaveSize(count=count) for count in range(1, waves)), EVERYBODY)
    strategy = RolloutStrategy(waves=sizes, gate=GatePolicy(on_failure=on_failure))
    return machine.start(
        make_deployment(),
        rollout_id=RolloutId("r1"),
        uid="uid-r1",
        target_version=2,
        strategy=strategy,
        waves=plan_waves(sizes, AGENTS, seed="r1"),
        now=NOW,
    ).rollout


def judge(outcome: GateOutcome) -> GateVerdict:
    return make_verdict(outcome=outcome, reason=f"SAID_{outcome}", message=f"said {outcome}")


def take(rollout: Rollout, outcome: GateOutcome, seconds: float = 1.0, progress: Progress = NOTHING) -> Decision:
    verdict = judge(outcome) if open_wave(rollout) is not None else None
    return step(rollout, progress, verdict, after_seconds(seconds))


@st.composite
def events(draw: st.DrawFn) -> Callable[[Rollout, datetime], Decision]:
    """A step, or a command; a refused command changes nothing."""
    kind = draw(st.integers(0, len(COMMANDS) + 5))
    if kind < len(COMMANDS):
        command = COMMANDS[kind]

        def give(rollout: Rollout, now: datetime) -> Decision:
            try:
                return command(rollout, now)
            except PreconditionError:
                return Decision(rollout=rollout)

        return give
    progress, verdict = draw(strategies.progresses), draw(strategies.verdicts())
    late = draw(st.sets(strategies.agent_ids, max_size=2))

    def tick(rollout: Rollout, now: datetime) -> Decision:
        if rollout.state is RolloutState.RUNNING:
            rollout = replace(rollout, waves=enlist(rollout.waves, late))
        return step(rollout, progress, verdict if open_wave(rollout) else None, now)

    return tick


histories = st.lists(events(), max_size=25)
starts = st.builds(make_started, st.sampled_from(FailureAction), st.integers(1, 4))


def check_waves(rollout: Rollout) -> None:
    states = [wave.state for wave in rollout.waves]
    passed = next((index for index, state in enumerate(states) if state is not WaveState.PASSED), len(states))
    assert all(state is WaveState.PENDING for state in states[passed + 1 :])
    assert states[passed : passed + 1] != [WaveState.PENDING]
    assert [wave.index for wave in rollout.waves] == list(range(len(states)))
    assert all((wave.admit_time is None) is (wave.state is WaveState.PENDING) for wave in rollout.waves)


@given(starts, histories)
def test_only_transitions_of_the_table_happen_and_waves_stay_in_order(
    rollout: Rollout, history: list[Callable[[Rollout, datetime], Decision]]
) -> None:
    check_waves(rollout)
    for number, event in enumerate(history):
        after = event(rollout, after_seconds(number)).rollout
        assert after.state is rollout.state or after.state in TRANSITIONS[rollout.state]
        assert (after.end_time is None) is (after.state in ACTIVE_STATES)
        check_waves(after)
        rollout = after


@given(starts, histories)
def test_a_rollout_that_ended_stays_as_it_is_but_for_a_rollback_by_hand(
    rollout: Rollout, history: list[Callable[[Rollout, datetime], Decision]]
) -> None:
    for number, event in enumerate(history):
        after = event(rollout, after_seconds(number)).rollout
        if rollout.state in {RolloutState.ROLLED_BACK, RolloutState.ABORTED}:
            assert after == rollout
        if rollout.state is RolloutState.SUCCEEDED:
            assert after == rollout or after.reason == "ROLLED_BACK_BY_OPERATOR"
        rollout = after


@given(starts, histories)
def test_exposure_grows_only_while_running_and_by_one_wave_a_step(
    rollout: Rollout, history: list[Callable[[Rollout, datetime], Decision]]
) -> None:
    for number, event in enumerate(history):
        after = event(rollout, after_seconds(number)).rollout
        admitted = [wave.index for wave in after.waves if wave.state is not WaveState.PENDING]
        before = [wave.index for wave in rollout.waves if wave.state is not WaveState.PENDING]
        assert len(admitted) - len(before) in (0, 1)
        if len(admitted) > len(before):
            assert rollout.waves[before[-1]].state is WaveState.ADMITTED
            assert after.waves[before[-1]].state is WaveState.PASSED
        if rollout.state in FROZEN:
            assert exposed_agents(after) == exposed_agents(rollout)
        rollout = after


@given(starts, histories)
def test_the_update_time_moves_exactly_when_something_else_does(
    rollout: Rollout, history: list[Callable[[Rollout, datetime], Decision]]
) -> None:
    for number, event in enumerate(history, start=1):
        after = event(rollout, after_seconds(number)).rollout
        same = replace(after, update_time=rollout.update_time) == rollout
        enlisted = after.waves != rollout.waves and after.update_time == rollout.update_time
        assert same is (after.update_time == rollout.update_time) or enlisted
        rollout = after


@given(starts, histories, strategies.progresses, strategies.verdicts())
def test_a_step_that_moved_nothing_moves_nothing_when_repeated(
    rollout: Rollout,
    history: list[Callable[[Rollout, datetime], Decision]],
    progress: Progress,
    verdict: GateVerdict,
) -> None:
    for number, event in enumerate(history):
        rollout = event(rollout, after_seconds(number)).rollout
    wave = open_wave(rollout)
    once = step(rollout, progress, verdict if wave else None, after_seconds(100)).rollout
    after = open_wave(once)
    if once.state is rollout.state and (after and after.index) == (wave and wave.index):
        later = replace(verdict, evaluate_time=after_seconds(101))
        assert step(once, progress, later if wave else None, after_seconds(101)) == Decision(rollout=once)


@given(starts, histories)
def test_the_deployment_moves_exactly_on_success_and_on_its_undoing(
    rollout: Rollout, history: list[Callable[[Rollout, datetime], Decision]]
) -> None:
    for number, event in enumerate(history):
        decision = event(rollout, after_seconds(number))
        moves = {
            (RolloutState.RUNNING, RolloutState.SUCCEEDED): SetVersion(version=rollout.target_version),
            (RolloutState.SUCCEEDED, RolloutState.ROLLING_BACK): SetVersion(version=rollout.previous_version),
        }
        assert decision.set_version == moves.get((rollout.state, decision.rollout.state))
        rollout = decision.rollout


def test_the_first_wave_is_admitted_at_the_start() -> None:
    rollout = make_started()
    assert [wave.state for wave in rollout.waves] == [WaveState.ADMITTED, WaveState.PENDING, WaveState.PENDING]
    assert rollout.message == "wave 1 of 3 (1) was admitted: 1 agent"


def test_every_wave_passes_in_turn_and_the_deployment_gets_the_version() -> None:
    rollout = make_started()
    for wave in range(2):
        rollout = take(rollout, GateOutcome.PASS, wave).rollout
        assert rollout.state is RolloutState.RUNNING
        assert rollout.waves[wave + 1].admit_time == after_seconds(wave)
    decision = take(rollout, GateOutcome.PASS, 9)
    assert decision.rollout.state is RolloutState.SUCCEEDED
    assert decision.rollout.end_time == after_seconds(9)
    assert decision.set_version == SetVersion(version=2)


def test_a_pending_gate_names_what_it_waits_for() -> None:
    progress = Progress(waiting=(AgentId("st-1"),), silent=(AgentId("st-2"),))
    rollout = take(make_started(), GateOutcome.PENDING, progress=progress).rollout
    assert rollout.reason == "SAID_PENDING"
    assert rollout.message == "wave 1 of 3: said PENDING; not ready: st-1; out of reach: st-2"


def test_a_failed_gate_rolls_back_and_ends_when_the_last_agent_is_back() -> None:
    rollout = take(make_started(), GateOutcome.FAIL).rollout
    assert (rollout.state, rollout.waves[0].state) == (RolloutState.ROLLING_BACK, WaveState.FAILED)
    assert rollout.message == "wave 1 of 3 failed: said FAIL; returns to version 1"
    rollout = take(rollout, GateOutcome.FAIL, progress=Progress(returning=(AgentId("st-1"),))).rollout
    assert rollout.state is RolloutState.ROLLING_BACK
    assert "waits for st-1" in rollout.message
    rollout = take(rollout, GateOutcome.FAIL, progress=Progress(missing=(AgentId("st-2"),))).rollout
    assert (rollout.state, rollout.reason) == (RolloutState.ROLLED_BACK, "SAID_FAIL")
    assert rollout.message == "said FAIL; every agent in reach was returned to version 1; out of reach: st-2"


def test_a_failed_gate_pauses_where_the_policy_says_so_and_a_retry_opens_it_anew() -> None:
    rollout = take(make_started(FailureAction.PAUSE), GateOutcome.FAIL).rollout
    assert (rollout.state, rollout.waves[0].state) == (RolloutState.PAUSED, WaveState.FAILED)
    decision = machine.retry(rollout, after_seconds(5))
    assert decision.raise_offer
    assert decision.rollout.state is RolloutState.RUNNING
    assert decision.rollout.waves[0].state is WaveState.ADMITTED
    assert decision.rollout.waves[0].admit_time == after_seconds(5)
    assert decision.rollout.waves[0].verdict is None


def test_an_inconclusive_gate_pauses() -> None:
    rollout = take(make_started(), GateOutcome.INCONCLUSIVE).rollout
    assert (rollout.state, rollout.reason) == (RolloutState.PAUSED, "SAID_INCONCLUSIVE")


def test_a_pause_by_hand_outlasts_a_pass_and_a_retry() -> None:
    rollout = machine.pause(make_started(), NOW).rollout
    rollout = take(rollout, GateOutcome.PASS).rollout
    assert rollout.state is RolloutState.PAUSED
    assert rollout.waves[0].verdict == judge(GateOutcome.PASS)
    rollout = machine.retry(rollout, NOW).rollout
    assert rollout.state is RolloutState.PAUSED
    assert machine.resume(rollout, NOW).rollout.state is RolloutState.RUNNING


def test_long_lists_of_agents_stay_one_line() -> None:
    progress = Progress(waiting=tuple(AgentId(f"st-{number}") for number in range(8)))
    message = take(make_started(), GateOutcome.PENDING, progress=progress).rollout.message
    assert message.endswith("not ready: st-0, st-1, st-2, st-3, st-4 and 3 more")


ALLOWED: dict[Command, set[RolloutState]] = {
    machine.pause: {RolloutState.RUNNING},
    machine.resume: {RolloutState.PAUSED},
    machine.retry: {RolloutState.RUNNING, RolloutState.PAUSED},
    machine.abort: set(ACTIVE_STATES),
    machine.rollback: {RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.SUCCEEDED},
}


@pytest.mark.parametrize("state", RolloutState)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_refused_outside_of_its_states_with_the_remedy(command: Command, state: RolloutState) -> None:
    ended = after_seconds(1) if state not in ACTIVE_STATES else None
    rollout = replace(make_started(), state=state, end_time=ended)
    if state in ALLOWED[command]:
        assert command(rollout, after_seconds(2)).rollout.update_time == after_seconds(2)
        return
    with pytest.raises(PreconditionError) as refusal:
        command(rollout, after_seconds(2))
    assert refusal.value.reason is Reason.ROLLOUT_STATE
    assert f"rollouts/r1 is {state}" in refusal.value.message
    assert refusal.value.remedy
