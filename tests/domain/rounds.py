"""Whole rounds of a rollout, as the ticks have them, on agents that the test describes."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from controlplane.domain import rollout_commands as commands
from controlplane.domain.admission import TargetView
from controlplane.domain.gate import FailureAction, GateOutcome, GatePolicy, GateVerdict
from controlplane.domain.ids import AgentId, RolloutId
from controlplane.domain.progress import Install
from controlplane.domain.rollout import Decision, Progress, Rollout, RolloutStrategy, WaveSize, open_wave
from controlplane.domain.rollout_step import ALWAYS, StartWindow, carry
from controlplane.domain.wave import EVERYBODY, plan_waves
from tests.support.factories import NOW, after_seconds, make_deployment, make_verdict

ANNA, BERND = "operators/anna", "operators/bernd"
AGENTS = tuple(AgentId(f"st-{number}") for number in range(1, 7))
NOTHING = Progress()


def make_view(agent: AgentId, **overrides: Any) -> TargetView:
    """An agent in reach that waits for whatever it is given."""
    fields: dict[str, Any] = {
        "agent_id": agent,
        "site": "",
        "line": "3",
        "in_reach": True,
        "silent_seconds": 0.0,
        "install": Install.WAITING,
        "prefetched": False,
        "prefetch_failed": False,
        "took_up": False,
        "swap_open": True,
    }
    return TargetView(**(fields | overrides))


def make_views(agents: Iterable[AgentId] = AGENTS, **overrides: Any) -> dict[AgentId, TargetView]:
    return {agent: make_view(agent, **overrides) for agent in agents}


def make_strategy(on_failure: FailureAction = FailureAction.ROLLBACK, waves: int = 3, **fields: Any) -> RolloutStrategy:
    sizes = (*(WaveSize(count=count) for count in range(1, waves)), EVERYBODY)
    return RolloutStrategy(waves=sizes, gate=GatePolicy(on_failure=on_failure), **fields)


def make_fresh(strategy: RolloutStrategy) -> Rollout:
    """Started by ANNA at NOW, with no wave admitted."""
    return commands.start(
        make_deployment(),
        rollout_id=RolloutId("r1"),
        uid="uid-r1",
        target_version=2,
        strategy=strategy,
        waves=plan_waves(strategy.waves, AGENTS, seed="r1"),
        actor=ANNA,
        now=NOW,
    ).rollout


def make_started(on_failure: FailureAction = FailureAction.ROLLBACK, waves: int = 3, **fields: Any) -> Rollout:
    """After its first round."""
    fresh = make_fresh(make_strategy(on_failure, waves, **fields))
    return carry(fresh, NOTHING, None, make_views(), NOW).rollout


def judge(outcome: GateOutcome) -> GateVerdict:
    return make_verdict(outcome=outcome, reason=f"SAID_{outcome}", message=f"said {outcome}")


def take(
    rollout: Rollout,
    outcome: GateOutcome,
    seconds: float = 1.0,
    progress: Progress = NOTHING,
    *,
    views: dict[AgentId, TargetView] | None = None,
    start_window: StartWindow = ALWAYS,
    yanked: frozenset[int] = frozenset(),
) -> Decision:
    """One round so many seconds after NOW."""
    verdict = judge(outcome) if open_wave(rollout) is not None else None
    seen, now = make_views() if views is None else views, after_seconds(seconds)
    return carry(rollout, progress, verdict, seen, now, start_window=start_window, yanked=yanked)


def released_times(rollout: Rollout) -> list[datetime]:
    return sorted(release.time for wave in rollout.waves for release in wave.releases)
