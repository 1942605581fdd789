"""A slice of the simulation, and proof that each of its checkers bites."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from controlplane.app.rollout_steps import RolloutSteps
from controlplane.app.rollouts import Arrangement
from controlplane.domain import rollout_commands
from controlplane.domain.assignment import DesiredState, Place
from controlplane.domain.gate import GateOutcome, GateVerdict
from controlplane.domain.ids import AgentId
from controlplane.domain.progress import Install
from controlplane.domain.rollout import Decision, Release, Rollout, RolloutState, Wave, WaveState, version_for
from controlplane.domain.rollout_step import ALWAYS
from tests.simulation.run import quiet
from tests.simulation.seeds import kept_seeds
from tests.simulation.snapshot import ACTIVE, ViolationError
from tests.simulation.world import simulate

SEEDS = 50
PATIENCE = 150
"""Seeds within which a planted bug must be found."""


@pytest.fixture(autouse=True)
def _quiet() -> None:
    quiet()


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
async def test_no_rule_is_broken_and_everything_comes_to_rest(first: int) -> None:
    for seed in range(first, first + 10):
        await simulate(seed)


@pytest.mark.parametrize("seed", kept_seeds())
async def test_what_broke_once_holds(seed: int) -> None:
    await simulate(seed)


async def test_a_seed_gives_one_history() -> None:
    assert await simulate(7) == await simulate(7)


async def _find_violation(rule: str) -> str:
    """The first violation of the rule, else the last of another, else nothing."""
    found = ""
    for seed in range(PATIENCE):
        try:
            await simulate(seed)
        except ViolationError as violation:
            found = str(violation)
            if f" s: {rule}:" in found:
                break
    return found


def _expose_everybody(rollout: Rollout) -> frozenset[AgentId]:
    return frozenset(agent for wave in rollout.waves for agent in wave.agents)


def _forget_pins(place: Place) -> int | None:
    rollout = place.move.rollout if place.move is not None else None
    exposed = place.move is not None and place.agent_id in place.move.exposed
    return version_for(place.deployment.version_of(place.agent_id), rollout, exposed=exposed)


def _admit_after_failure(rollout: Rollout, wave: Wave, verdict: GateVerdict, known: Any) -> Decision:
    waves = list(rollout.waves)
    waves[wave.index] = replace(wave, state=WaveState.FAILED, complete_time=known.now, verdict=verdict)
    if wave.index + 1 < len(waves):
        waves[wave.index + 1] = replace(waves[wave.index + 1], state=WaveState.ADMITTED, admit_time=known.now)
    return Decision(rollout=replace(rollout, waves=tuple(waves)))


def _enlist_first(waves: tuple[Wave, ...], agents: Any) -> tuple[Wave, ...]:
    late = sorted(set(agents) - {agent for wave in waves for agent in wave.agents})
    return (replace(waves[0], agents=tuple(sorted([*waves[0].agents, *late]))), *waves[1:]) if late else waves


def _move_anyhow(rollout: Rollout, now: datetime, **changes: Any) -> Rollout:
    return replace(rollout, **changes)


def _pass(_policy: Any, evidence: Any, *, now: datetime, **_: Any) -> GateVerdict:
    return GateVerdict(
        outcome=GateOutcome.PASS, reason="GATE_PASSED", message="", evidence=evidence.counts(), evaluate_time=now
    )


_real_approve = rollout_commands.approve


def _approve_own(rollout: Rollout, now: datetime, *, actor: str, wave: int | None = None) -> Decision:
    decision = _real_approve(rollout, now, actor="operators/nobody", wave=wave)
    waves = tuple(
        replace(each, approver=actor) if each.approver == "operators/nobody" else each
        for each in decision.rollout.waves
    )
    return replace(decision, rollout=replace(decision.rollout, waves=waves))


_real_decide = RolloutSteps.decide


async def _release_while_paused(self: Any, uow: Any, scene: Any, rollout: Rollout, now: datetime) -> Decision:
    decision = await _real_decide(self, uow, scene, rollout, now)
    after = decision.rollout
    if after.state is not RolloutState.PAUSED:
        return decision
    waves = tuple(
        replace(wave, releases=tuple(Release(agent, now.replace(microsecond=0)) for agent in wave.agents))
        if wave.state is WaveState.ADMITTED and not wave.releases
        else wave
        for wave in after.waves
    )
    return replace(decision, rollout=replace(after, waves=waves))


_LOOK = RolloutSteps.look


def _look_at_open_windows(self: RolloutSteps, rollout: Rollout, sight: Any) -> Mapping[AgentId, Any]:
    return {agent: replace(view, swap_open=True) for agent, view in _LOOK(self, rollout, sight).items()}


def _always_queue(_when: Any, unended: Any, _deployment: Any) -> Arrangement:
    queued = tuple(rollout for rollout in unended if rollout.state is RolloutState.QUEUED)
    return Arrangement(supersedes=queued, behind=next((r for r in unended if r.state in ACTIVE), None))


async def _forget_generations(self: Any, states: list[DesiredState]) -> None:
    for state in states:
        self._tables.desired[state.agent_id] = replace(state, generation=1)


async def _accept(*_: Any, **__: Any) -> None:
    return None


async def _nobody(*_: object) -> tuple[str, ...]:
    return ()


Patches = dict[str, Callable[..., Any] | object]

BUGS: dict[str, tuple[Patches, str]] = {
    "every target of a rollout is exposed at once": (
        {"controlplane.domain.assignment.exposed_agents": _expose_everybody},
        "exposure",
    ),
    "desired states lag behind the rollout": ({"controlplane.app.rollout_steps.converge": _nobody}, "exposure"),
    "a pin counts for nothing": ({"controlplane.domain.assignment.Place.intended_version": _forget_pins}, "pins"),
    "a yank counts for nothing": (
        {"controlplane.domain.assignment.Place.is_yanked": lambda *_: False},
        "yanks",
    ),
    "a wave is admitted after a failed one": (
        {"controlplane.domain.rollout_step._fail": _admit_after_failure},
        "waves",
    ),
    "who joins late is put into the canary": (
        {"controlplane.domain.rollout_step.enlist": _enlist_first},
        "membership",
    ),
    "a generation is not counted on": (
        {"tests.support.memory_store._Desired.save": _forget_generations},
        "generation",
    ),
    "an unknown version is rolled out": ({"controlplane.app.rollouts.check_version": _accept}, "versions"),
    "a second rollout may start": (
        {"controlplane.app.rollouts.arrange": lambda *_: Arrangement()},
        "one active",
    ),
    "nothing is written down": ({"controlplane.app.rollout_steps.write_down": _accept}, "audit"),
    "missing evidence passes": ({"controlplane.app.rollout_steps.evaluate": _pass}, "admission"),
    "nobody needs to approve": (
        {"controlplane.domain.rollout_step.needs_approval": lambda *_: False},
        "approval",
    ),
    "everybody approves their own": (
        {"controlplane.domain.rollout_commands.approve": _approve_own},
        "second person",
    ),
    "a wave starts at any time": (
        {"controlplane.app.rollout_steps._start_window": lambda *_: ALWAYS},
        "start window",
    ),
    "an agent is released at any time": (
        {"controlplane.app.rollout_steps.RolloutSteps.look": _look_at_open_windows},
        "swap window",
    ),
    "a paused rollout releases agents": (
        {"controlplane.app.rollout_steps.RolloutSteps.decide": _release_while_paused},
        "release",
    ),
    "a whole line swaps at once": (
        {"controlplane.domain.admission._Round._is_between": lambda *_: False},
        "unavailable",
    ),
    "everybody is released at once": ({"controlplane.domain.admission._Pace.is_free": lambda *_: True}, "pace"),
    "a site fetches all at once": (
        {"controlplane.domain.admission._Round.site_is_free": lambda *_: True},
        "bytes",
    ),
    "what has ended can be moved": (
        {
            "controlplane.domain.rollout_commands._demand": lambda *_: None,
            "controlplane.domain.rollout_commands.moved": _move_anyhow,
        },
        "ended",
    ),
    "an installed target is never seen": (
        {"controlplane.domain.progress._install": lambda *_, **__: Install.WAITING},
        "liveness",
    ),
    "a rollout that stands still blocks the next": (
        {"controlplane.app.rollouts.arrange": _always_queue},
        "blocked",
    ),
    "an undecided state raises": ({"controlplane.app.rollout_steps.evaluate": lambda *_, **__: None}, "raised"),
}


@pytest.mark.parametrize("bug", BUGS)
async def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patches, rule = BUGS[bug]
    for target, code in patches.items():
        monkeypatch.setattr(target, code)
    assert f" s: {rule}:" in await _find_violation(rule)
