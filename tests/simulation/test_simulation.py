"""A slice of the simulation, and proof that each of its checkers bites."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from controlplane.domain.assignment import DesiredState
from controlplane.domain.gate import GateVerdict
from controlplane.domain.progress import Install
from controlplane.domain.rollout import Decision, Rollout, Wave, WaveState
from tests.simulation.checkers import ViolationError
from tests.simulation.world import simulate
from tests.support import memory_store

SEEDS = 50
PATIENCE = 60
"""Seeds within which a planted bug must be found."""


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
async def test_no_rule_is_broken_and_everything_comes_to_rest(first: int) -> None:
    for seed in range(first, first + 10):
        await simulate(seed)


async def test_a_seed_gives_one_history() -> None:
    assert await simulate(7) == await simulate(7)


async def _find_violation() -> str:
    for seed in range(PATIENCE):
        try:
            await simulate(seed)
        except ViolationError as violation:
            return str(violation)
    return ""


def _expose_everybody(rollout: Rollout) -> frozenset[str]:
    return frozenset(agent for wave in rollout.waves for agent in wave.agents)


def _admit_after_failure(rollout: Rollout, wave: Wave, verdict: GateVerdict, now: datetime) -> Decision:
    waves = list(rollout.waves)
    waves[wave.index] = replace(wave, state=WaveState.FAILED, complete_time=now, verdict=verdict)
    if wave.index + 1 < len(waves):
        waves[wave.index + 1] = replace(waves[wave.index + 1], state=WaveState.ADMITTED, admit_time=now)
    return Decision(rollout=replace(rollout, waves=tuple(waves)))


def _admit_all(rollout: Rollout, wave: Wave, verdict: GateVerdict, now: datetime) -> Decision:
    passed = replace(wave, state=WaveState.PASSED, complete_time=now, verdict=verdict)
    rest = (replace(one, state=WaveState.ADMITTED, admit_time=now) for one in rollout.waves[wave.index + 1 :])
    return Decision(rollout=replace(rollout, waves=(*rollout.waves[: wave.index], passed, *rest)))


def _move_anyhow(rollout: Rollout, now: datetime, **changes: Any) -> Decision:
    return Decision(rollout=replace(rollout, **changes))


async def _forget_generations(self: Any, states: list[DesiredState]) -> None:
    for state in states:
        self._tables.desired[state.agent_id] = replace(state, generation=1)


async def _accept(*_: Any, **__: Any) -> None:
    return None


BUGS: dict[str, tuple[dict[str, Callable[..., Any]], str]] = {
    "every target of a rollout is exposed at once": (
        {"controlplane.domain.assignment.exposed_agents": _expose_everybody},
        "exposure:",
    ),
    "desired states lag behind the rollout": ({"controlplane.app.rollouts.converge": lambda _: _nobody()}, "exposure:"),
    "a wave is admitted after a failed one": (
        {"controlplane.domain.rollout._fail": _admit_after_failure},
        "waves:",
    ),
    "all waves are admitted at the first pass": ({"controlplane.domain.rollout._pass": _admit_all}, "waves:"),
    "a generation is not counted on": ({"memory": _forget_generations}, "generation:"),
    "an unknown version is rolled out": ({"controlplane.app.rollouts.check_version": _accept}, "versions:"),
    "a second rollout may start": (
        {"controlplane.app.rollouts.check_no_rollout": lambda *_, **__: None},
        "one active:",
    ),
    "missing evidence passes": ({"controlplane.domain.gate._missing": lambda *_: None}, "admission:"),
    "what has ended can be moved": (
        {
            "controlplane.domain.rollout._demand": lambda *_: None,
            "controlplane.domain.rollout._moved": _move_anyhow,
        },
        "ended:",
    ),
    "an installed target is never seen": (
        {"controlplane.domain.progress.install_state": lambda *_: Install.WAITING},
        "liveness:",
    ),
    "an undecided state raises": ({"controlplane.app.rollouts.evaluate": lambda *_, **__: None}, "raised:"),
}


async def _nobody() -> tuple[str, ...]:
    return ()


@pytest.mark.parametrize("bug", BUGS)
async def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patches, rule = BUGS[bug]
    for target, code in patches.items():
        if target == "memory":
            monkeypatch.setattr(memory_store._Desired, "save", code)
        else:
            monkeypatch.setattr(target, code)
    assert rule in await _find_violation()
