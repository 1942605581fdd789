"""The state machine of rollouts, driven by anything that can happen to it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain import rollout_commands as machine
from controlplane.domain.errors import PreconditionError, Reason
from controlplane.domain.gate import FailureAction, GateOutcome, GateVerdict
from controlplane.domain.ids import AgentId, RolloutId
from controlplane.domain.rollout import (
    ACTIVE_STATES,
    ENDED_STATES,
    TRANSITIONS,
    ApprovalScope,
    Decision,
    Progress,
    Rollout,
    RolloutState,
    SetVersion,
    ShadowPolicy,
    WaveState,
    exposed_agents,
    open_wave,
    version_for,
)
from controlplane.domain.rollout_step import StartWindow, carry, enlist_late
from tests.domain import strategies
from tests.domain.rounds import (
    AGENTS,
    ANNA,
    BERND,
    NOTHING,
    judge,
    make_fresh,
    make_started,
    make_strategy,
    make_views,
    take,
)
from tests.support.factories import NOW, after_seconds, make_deployment

Event = Callable[[Rollout, datetime], Decision]
FROZEN = frozenset(RolloutState) - {RolloutState.RUNNING}
"""States in which no agent may be exposed anew."""


def command(name: str, **given: object) -> Event:
    """A command by ANNA; a refused one changes nothing."""

    def give(rollout: Rollout, now: datetime) -> Decision:
        try:
            decision: Decision = getattr(machine, name)(rollout, now, **({"actor": ANNA} | given))
        except PreconditionError:
            return Decision(rollout=rollout)
        return decision

    return give


def supersede(rollout: Rollout, now: datetime) -> Decision:
    try:
        return machine.supersede(rollout, RolloutId("r2"), now, actor=ANNA)
    except PreconditionError:
        return Decision(rollout=rollout)


COMMANDS: tuple[Event, ...] = (
    command("pause"),
    command("resume"),
    command("retry"),
    command("abort"),
    command("abort", keep=True),
    command("rollback"),
    command("approve"),
    command("approve", actor=BERND),
    supersede,
)


@st.composite
def events(draw: st.DrawFn) -> Event:
    """A round, or a command."""
    kind = draw(st.integers(0, len(COMMANDS) + 8))
    if kind < len(COMMANDS):
        return COMMANDS[kind]
    progress, verdict = draw(strategies.progresses), draw(strategies.verdicts())
    late = draw(st.sets(strategies.agent_ids, max_size=2))
    window = StartWindow(is_open=draw(st.booleans()))
    yanked = frozenset({2}) if draw(st.integers(0, 9)) == 0 else frozenset[int]()

    def tick(rollout: Rollout, now: datetime) -> Decision:
        joined = Decision(rollout=rollout)
        if rollout.state is RolloutState.RUNNING:
            joined = enlist_late(rollout, late, now)
        found = verdict if open_wave(rollout) else None
        views = make_views((*AGENTS, *sorted(late)))
        taken = carry(joined.rollout, progress, found, views, now, start_window=window, yanked=yanked)
        return joined.then(taken)

    return tick


histories = st.lists(events(), max_size=25)
plans = st.builds(
    make_strategy,
    st.sampled_from(FailureAction),
    st.integers(1, 4),
    approval=st.sampled_from(ApprovalScope),
    second_person=st.booleans(),
    shadow=st.sampled_from([None, None, ShadowPolicy(min_comparisons=1)]),
    deadline_seconds=st.sampled_from([0.0, 0.0, 15.0]),
    prefetch=st.booleans(),
)
starts = plans.map(make_fresh)


def check_waves(rollout: Rollout) -> None:
    states = [wave.state for wave in rollout.waves]
    passed = next((index for index, state in enumerate(states) if state is not WaveState.PASSED), len(states))
    assert all(state is WaveState.PENDING for state in states[passed + 1 :])
    assert [wave.index for wave in rollout.waves] == list(range(len(states)))
    for wave in rollout.waves:
        assert (wave.admit_time is None) or wave.state not in {WaveState.PENDING, WaveState.SHADOWING}
        assert not wave.releases or wave.admit_time is not None
        assert {release.agent_id for release in wave.releases} <= set(wave.agents)
        assert list(wave.releases) == sorted(wave.releases, key=lambda release: release.time)


@given(starts, histories)
def test_only_transitions_of_the_table_happen_and_waves_stay_in_order(rollout: Rollout, history: list[Event]) -> None:
    check_waves(rollout)
    for number, event in enumerate(history):
        after = event(rollout, after_seconds(number)).rollout
        assert after.state is rollout.state or after.state in TRANSITIONS[rollout.state]
        assert (after.end_time is None) is (after.state not in ENDED_STATES)
        check_waves(after)
        rollout = after


@given(starts, histories)
def test_a_rollout_that_ended_stays_as_it_is_but_for_a_rollback_by_hand(rollout: Rollout, history: list[Event]) -> None:
    for number, event in enumerate(history):
        after = event(rollout, after_seconds(number)).rollout
        if rollout.state in ENDED_STATES - {RolloutState.SUCCEEDED}:
            assert after == rollout
        if rollout.state is RolloutState.SUCCEEDED:
            assert after == rollout or after.reason == "ROLLED_BACK_BY_OPERATOR"
        rollout = after


@given(starts, histories)
def test_exposure_grows_only_while_running_and_by_one_wave_a_step(rollout: Rollout, history: list[Event]) -> None:
    for number, event in enumerate(history):
        after = event(rollout, after_seconds(number)).rollout
        admitted = [wave.index for wave in after.waves if wave.admit_time is not None]
        before = [wave.index for wave in rollout.waves if wave.admit_time is not None]
        assert len(admitted) - len(before) in (0, 1)
        if len(admitted) > len(before):
            assert all(wave.state is WaveState.PASSED for wave in after.waves[: admitted[-1]])
        if rollout.state in FROZEN:
            assert exposed_agents(after) <= exposed_agents(rollout)
        assert exposed_agents(after) - exposed_agents(rollout) <= set(
            after.waves[admitted[-1]].agents if admitted else ()
        )
        rollout = after


@given(starts, histories)
def test_the_update_time_moves_exactly_when_something_else_does(rollout: Rollout, history: list[Event]) -> None:
    for number, event in enumerate(history, start=1):
        after = event(rollout, after_seconds(number)).rollout
        same = replace(after, update_time=rollout.update_time) == rollout
        assert same is (after.update_time == rollout.update_time)
        rollout = after


@given(starts, histories, strategies.progresses, strategies.verdicts())
def test_a_step_that_moved_nothing_moves_nothing_when_repeated(
    rollout: Rollout,
    history: list[Event],
    progress: Progress,
    verdict: GateVerdict,
) -> None:
    for number, event in enumerate(history):
        rollout = event(rollout, after_seconds(number)).rollout

    def again(before: Rollout, seconds: float) -> Decision:
        found = replace(verdict, evaluate_time=after_seconds(seconds)) if open_wave(before) else None
        return carry(before, progress, found, make_views(), after_seconds(seconds))

    once = again(rollout, 100).rollout
    before, after = open_wave(rollout), open_wave(once)
    stands = [(wave.index, wave.state) for wave in (before, after) if wave is not None]
    if once.state is rollout.state and len(set(stands)) <= 1 and (before is None) is (after is None):
        second = again(once, 101)
        assert second == Decision(rollout=once)


@given(starts, histories)
def test_the_deployment_moves_exactly_on_success_and_on_its_undoing(rollout: Rollout, history: list[Event]) -> None:
    for number, event in enumerate(history):
        decision = event(rollout, after_seconds(number))
        moves = {
            (RolloutState.RUNNING, RolloutState.SUCCEEDED): SetVersion(version=rollout.target_version),
            (RolloutState.SUCCEEDED, RolloutState.ROLLING_BACK): SetVersion(version=rollout.previous_version),
        }
        assert decision.set_version == moves.get((rollout.state, decision.rollout.state))
        assert decision.clear_kept is (decision.rollout.state is RolloutState.SUCCEEDED is not rollout.state)
        rollout = decision.rollout


def test_the_first_wave_is_admitted_in_the_first_round() -> None:
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
    decision = machine.retry(rollout, after_seconds(5), actor=ANNA)
    assert decision.raise_offer
    assert decision.rollout.state is RolloutState.RUNNING
    assert decision.rollout.waves[0].state is WaveState.ADMITTED
    assert decision.rollout.waves[0].admit_time == after_seconds(5)
    assert decision.rollout.waves[0].verdict is None


def test_an_inconclusive_gate_holds_and_goes_on_by_itself() -> None:
    rollout = take(make_started(), GateOutcome.INCONCLUSIVE).rollout
    assert (rollout.state, rollout.reason) == (RolloutState.RUNNING, "HOLDING_SAID_INCONCLUSIVE")
    assert rollout.message.startswith("wave 1 of 3 holds: said INCONCLUSIVE")
    assert take(rollout, GateOutcome.PASS, 2).rollout.waves[1].state is WaveState.ADMITTED


def test_a_pause_by_hand_outlasts_a_pass_and_a_retry() -> None:
    rollout = machine.pause(make_started(), NOW, actor=ANNA).rollout
    rollout = take(rollout, GateOutcome.PASS).rollout
    assert rollout.state is RolloutState.PAUSED
    assert rollout.waves[0].verdict == judge(GateOutcome.PASS)
    rollout = machine.retry(rollout, NOW, actor=ANNA).rollout
    assert rollout.state is RolloutState.PAUSED
    assert machine.resume(rollout, NOW, actor=ANNA).rollout.state is RolloutState.RUNNING


def test_long_lists_of_agents_stay_one_line() -> None:
    progress = Progress(waiting=tuple(AgentId(f"st-{number}") for number in range(8)))
    message = take(make_started(), GateOutcome.PENDING, progress=progress).rollout.message
    assert message.endswith("not ready: st-0, st-1, st-2, st-3, st-4 and 3 more")


RUNNING, PAUSED = RolloutState.RUNNING, RolloutState.PAUSED
ALLOWED: dict[str, set[RolloutState]] = {
    "pause": {RUNNING},
    "resume": {PAUSED},
    "retry": {RUNNING, PAUSED},
    "abort": {RolloutState.QUEUED, *ACTIVE_STATES},
    "rollback": {RUNNING, PAUSED, RolloutState.SUCCEEDED},
}


@pytest.mark.parametrize("state", RolloutState)
@pytest.mark.parametrize("name", ALLOWED)
def test_a_command_is_refused_outside_of_its_states_with_the_remedy(name: str, state: RolloutState) -> None:
    ended = after_seconds(1) if state in ENDED_STATES else None
    rollout = replace(make_started(), state=state, end_time=ended)
    give = getattr(machine, name)
    if state in ALLOWED[name]:
        decision = give(rollout, after_seconds(2), actor=ANNA)
        assert decision.rollout.update_time == after_seconds(2)
        assert [said.actor for said in decision.happenings] == [ANNA]
        return
    with pytest.raises(PreconditionError) as refusal:
        give(rollout, after_seconds(2), actor=ANNA)
    assert refusal.value.reason is Reason.ROLLOUT_STATE
    assert f"rollouts/r1 is {state}" in refusal.value.message
    assert refusal.value.remedy


@given(starts, histories)
def test_a_wave_is_admitted_only_once_it_was_approved_by_whoever_may(rollout: Rollout, history: list[Event]) -> None:
    for number, event in enumerate(history):
        rollout = event(rollout, after_seconds(number)).rollout
        for wave in rollout.waves:
            needed = rollout.strategy.approval is ApprovalScope.EVERY_WAVE or (
                rollout.strategy.approval is ApprovalScope.AFTER_CANARY and wave.index > 0
            )
            assert wave.admit_time is None or not needed or wave.approver
            assert not (wave.approver == ANNA and rollout.strategy.second_person)


@given(starts, histories)
def test_nothing_answers_before_its_shadow_run_has_passed(rollout: Rollout, history: list[Event]) -> None:
    shadowed = False
    for number, event in enumerate(history):
        before = rollout
        rollout = event(rollout, after_seconds(number)).rollout
        shadowed |= before.waves[0].state is WaveState.SHADOWING
        if rollout.strategy.shadow is not None and rollout.waves[0].admit_time is not None:
            assert shadowed
            assert rollout.waves[0].shadow_time is not None


@given(starts, histories)
def test_every_change_of_state_is_written_down_with_who_or_which_rule(rollout: Rollout, history: list[Event]) -> None:
    for number, event in enumerate(history):
        decision = event(rollout, after_seconds(number))
        if decision.rollout.state is not rollout.state or decision.rollout.reason != rollout.reason:
            assert decision.happenings
            assert decision.happenings[-1].reason
        if decision.rollout == rollout:
            assert not any(said.actor.startswith("rules/") for said in decision.happenings)
        assert all(said.actor.startswith(("operators/", "rules/")) for said in decision.happenings)
        assert all(said.resource == "rollouts/r1" for said in decision.happenings)
        rollout = decision.rollout


@given(starts, histories)
def test_targets_keep_the_version_only_where_that_was_asked_for_and_no_gate_failed(
    rollout: Rollout, history: list[Event]
) -> None:
    for number, event in enumerate(history):
        decision = event(rollout, after_seconds(number))
        if decision.keep_versions:
            assert decision.rollout.state in {RolloutState.ABORTED, RolloutState.SUPERSEDED}
            assert decision.keep_versions.keys() == exposed_agents(rollout)
            assert rollout.state in {RUNNING, PAUSED}
            failed = any(wave.state is WaveState.FAILED for wave in rollout.waves)
            assert not (failed and decision.rollout.state is RolloutState.SUPERSEDED)
        rollout = decision.rollout


@given(starts, histories)
def test_past_its_deadline_nothing_runs(rollout: Rollout, history: list[Event]) -> None:
    for number, event in enumerate(history):
        rollout = event(rollout, after_seconds(number)).rollout
    late = take(rollout, GateOutcome.PENDING, 1000).rollout
    assert not (late.state is RUNNING and rollout.strategy.deadline_seconds)
    assert exposed_agents(late) <= exposed_agents(rollout) or not rollout.strategy.deadline_seconds


@given(starts, histories)
def test_a_yanked_version_exposes_nobody_anew(rollout: Rollout, history: list[Event]) -> None:
    for number, event in enumerate(history):
        rollout = event(rollout, after_seconds(number)).rollout
    after = take(rollout, GateOutcome.PASS, 100, yanked=frozenset({2})).rollout
    assert after.state not in {RUNNING, PAUSED, RolloutState.QUEUED}
    assert exposed_agents(after) <= exposed_agents(rollout)


def test_only_a_rollout_that_runs_or_is_paused_gives_its_version_and_only_to_exposed_agents() -> None:
    for state in RolloutState:
        rollout = replace(make_started(), state=state)
        assert version_for(1, rollout, exposed=True) == (2 if state in {RUNNING, PAUSED} else 1)
        assert version_for(1, rollout, exposed=False) == 1
    assert version_for(None, None, exposed=True) is None


def test_a_shadow_run_comes_first_then_the_approval_then_the_window() -> None:
    shadow, approval = ShadowPolicy(min_comparisons=10), ApprovalScope.EVERY_WAVE
    rollout = make_started(shadow=shadow, approval=approval)
    assert (rollout.reason, rollout.waves[0].state) == ("SHADOWING", WaveState.SHADOWING)
    rollout = take(rollout, GateOutcome.PENDING, 1).rollout
    assert (rollout.reason, exposed_agents(rollout)) == ("SHADOWING", frozenset())
    with pytest.raises(PreconditionError):
        machine.approve(rollout, after_seconds(2), actor=BERND)
    rollout = take(rollout, GateOutcome.PASS, 3).rollout
    assert rollout.reason == "WAITS_FOR_APPROVAL"
    rollout = machine.approve(rollout, after_seconds(4), actor=BERND).rollout
    closed = StartWindow(is_open=False, opens=after_seconds(3600))
    rollout = take(rollout, GateOutcome.PASS, 5, start_window=closed).rollout
    assert (rollout.reason, exposed_agents(rollout)) == ("WAITS_FOR_WINDOW", frozenset())
    rollout = take(rollout, GateOutcome.PASS, 6).rollout
    assert rollout.waves[0].state is WaveState.ADMITTED
    assert exposed_agents(rollout) == set(rollout.waves[0].agents)


def test_a_failed_shadow_run_stops_it_and_is_run_anew_after_a_retry() -> None:
    rollout = make_started(FailureAction.PAUSE, shadow=ShadowPolicy(min_comparisons=10))
    rollout = take(rollout, GateOutcome.FAIL, 1).rollout
    assert (rollout.state, exposed_agents(rollout)) == (PAUSED, frozenset())
    rollout = machine.retry(rollout, after_seconds(2), actor=ANNA).rollout
    assert (rollout.waves[0].state, rollout.waves[0].shadow_time) == (WaveState.SHADOWING, after_seconds(2))


def test_a_queued_rollout_starts_on_the_version_that_its_deployment_has_by_then() -> None:
    strategy = make_strategy()
    queued = machine.queue(
        make_deployment(),
        rollout_id=RolloutId("r2"),
        uid="uid-r2",
        target_version=3,
        strategy=strategy,
        behind=RolloutId("r1"),
        actor=ANNA,
        now=NOW,
    ).rollout
    assert take(queued, GateOutcome.PASS).rollout == queued
    decision = machine.dequeue(queued, make_deployment(version=2), make_fresh(strategy).waves, after_seconds(9))
    assert decision.raise_offer
    assert (decision.rollout.state, decision.rollout.previous_version) == (RUNNING, 2)
    assert decision.rollout.creator == ANNA


def test_a_wave_does_not_pass_while_an_agent_of_it_is_not_released() -> None:
    views = make_views()
    rollout = carry(make_fresh(make_strategy(waves=1, agents_per_minute=1)), NOTHING, None, views, NOW).rollout
    assert len(exposed_agents(rollout)) == 1
    held = take(rollout, GateOutcome.PASS, 1).rollout
    assert (held.state, held.reason) == (RUNNING, "PACED")
    assert "5 more agents are to be released" in held.message
    assert take(rollout, GateOutcome.FAIL, 1).rollout.state is RolloutState.ROLLING_BACK
