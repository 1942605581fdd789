"""Admission over many rounds, as a machine of rules.

It plays agents against the real admission, steps and commands: they come and go, take up what they are given, install,
fail, and their windows open and close.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from controlplane.domain import rollout_commands as commands
from controlplane.domain.admission import TargetView
from controlplane.domain.errors import PreconditionError
from controlplane.domain.gate import FailureAction, GateOutcome
from controlplane.domain.ids import AgentId
from controlplane.domain.progress import Install
from controlplane.domain.rollout import (
    MaintenanceWindow,
    Rollout,
    RolloutState,
    RolloutStrategy,
    exposed_agents,
    open_wave,
)
from controlplane.domain.rollout_step import carry
from tests.domain.rounds import AGENTS, ANNA, NOTHING, judge, make_fresh, make_strategy, make_view
from tests.support.factories import after_seconds

ARTIFACT_BYTES = 500
OFFLINE_WAIT = 30.0
SWAP = (MaintenanceWindow(selector="", cron="0 2 * * *", duration_seconds=60.0, time_zone="UTC"),)

strategies_of_admission = st.builds(
    make_strategy,
    st.sampled_from(FailureAction),
    st.integers(1, 3),
    agents_per_minute=st.sampled_from([0, 1, 3, 7, 90]),
    max_unavailable_per_line=st.integers(0, 2),
    bytes_per_second_per_site=st.sampled_from([0, 50, 1000]),
    windows=st.sampled_from([(), SWAP]),
    offline_wait_seconds=st.just(OFFLINE_WAIT),
    install_seconds_max=st.just(100.0),
)
places = st.lists(st.sampled_from([("a", "1"), ("a", "2"), ("b", "1"), ("", "")]), min_size=6, max_size=6)


@dataclass
class _Agent:
    """What an agent of the machine is doing."""

    site: str
    line: str
    in_reach: bool = True
    silent_since: float = 0.0
    install: Install = Install.WAITING
    took_up: bool = False
    prefetched: bool = False


class AdmissionMachine(RuleBasedStateMachine):
    """One rollout, its agents and its operators."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.window_open = True
        self.given: list[tuple[float, AgentId]] = []
        self.told: list[tuple[float, str]] = []
        self.strategy = make_strategy()
        self.rollout = make_fresh(self.strategy)
        self.agents: dict[AgentId, _Agent] = {}

    @initialize(strategy=strategies_of_admission, sites_and_lines=places)
    def begin(self, strategy: RolloutStrategy, sites_and_lines: list[tuple[str, str]]) -> None:
        self.strategy = strategy
        self.rollout = make_fresh(strategy)
        self.agents = {agent: _Agent(*place) for agent, place in zip(AGENTS, sites_and_lines, strict=True)}

    def views(self) -> dict[AgentId, TargetView]:
        exposed = exposed_agents(self.rollout)
        return {
            name: make_view(
                name,
                site=agent.site,
                line=agent.line,
                in_reach=agent.in_reach,
                silent_seconds=0.0 if agent.in_reach else self.seconds - agent.silent_since,
                install=self.install_of(agent, exposed=name in exposed),
                prefetched=agent.prefetched,
                took_up=agent.took_up,
                swap_open=self.window_open or not self.strategy.windows,
            )
            for name, agent in self.agents.items()
        }

    def install_of(self, agent: _Agent, *, exposed: bool) -> Install:
        if agent.install is Install.FAILED:
            return Install.FAILED
        if not agent.in_reach:
            return Install.SILENT
        return agent.install if exposed else Install.WAITING

    @rule(seconds=st.sampled_from([0.3, 1.0, 5.0, 31.0]), outcome=st.sampled_from(GateOutcome))
    def tick(self, seconds: float, outcome: GateOutcome) -> None:
        self.seconds += seconds
        before, views = self.rollout, self.views()
        verdict = judge(outcome) if open_wave(before) is not None else None
        decision = carry(before, NOTHING, verdict, views, after_seconds(self.seconds), artifact_bytes=ARTIFACT_BYTES)
        self.rollout = decision.rollout
        self.check_round(before, views)

    def check_round(self, before: Rollout, views: dict[AgentId, TargetView]) -> None:
        new = exposed_agents(self.rollout) - exposed_agents(before)
        gone = exposed_agents(before) - exposed_agents(self.rollout)
        assert not new or before.state is RolloutState.RUNNING, "exposure grew while it did not run"
        assert all(views[agent].in_reach for agent in new), "given to an agent that cannot hear"
        assert all(views[agent].swap_open for agent in new), "given outside of a window"
        assert all(not views[agent].took_up and not views[agent].swap_open for agent in gone)
        self.check_lines(new, views)
        told = {one.agent_id for one in self.rollout.prefetches} - {one.agent_id for one in before.prefetches}
        fetches = [
            *told,
            *(agent for agent in new if not views[agent].prefetched and agent not in self.told_before(before)),
        ]
        self.told += [(self.seconds, views[agent].site) for agent in dict.fromkeys(fetches)]
        self.given += [(self.seconds, agent) for agent in new]
        for agent in gone:
            self.given = [(time, name) for time, name in self.given if name != agent]

    def check_lines(self, new: frozenset[AgentId], views: dict[AgentId, TargetView]) -> None:
        limit = self.strategy.max_unavailable_per_line
        between = Counter(
            views[agent].place
            for agent in exposed_agents(self.rollout)
            if views[agent].install in {Install.WAITING, Install.SILENT} and views[agent].silent_seconds < OFFLINE_WAIT
        )
        assert not limit or all(between[views[agent].place] <= limit for agent in new), between

    def told_before(self, before: Rollout) -> set[AgentId]:
        return {one.agent_id for one in before.prefetches}

    @rule(agent=st.sampled_from(AGENTS))
    def hear_and_take_up(self, agent: AgentId) -> None:
        seen = self.agents[agent]
        if seen.in_reach and agent in exposed_agents(self.rollout):
            seen.took_up = True

    @rule(agent=st.sampled_from(AGENTS), fails=st.sampled_from([False, False, True]))
    def install(self, agent: AgentId, fails: bool) -> None:
        seen = self.agents[agent]
        if seen.took_up and seen.in_reach and agent in exposed_agents(self.rollout):
            seen.install = Install.FAILED if fails else Install.INSTALLED

    @rule(agent=st.sampled_from(AGENTS))
    def prepare(self, agent: AgentId) -> None:
        if agent in self.told_before(self.rollout):
            self.agents[agent].prefetched = True

    @rule(agent=st.sampled_from(AGENTS))
    def come_or_go(self, agent: AgentId) -> None:
        seen = self.agents[agent]
        seen.in_reach, seen.silent_since = not seen.in_reach, self.seconds

    @rule()
    def turn_window(self) -> None:
        self.window_open = not self.window_open

    @rule(name=st.sampled_from(["pause", "resume", "resume", "retry", "rollback"]))
    def command(self, name: str) -> None:
        before = exposed_agents(self.rollout)
        try:
            decision = getattr(commands, name)(self.rollout, after_seconds(self.seconds), actor=ANNA)
        except PreconditionError:
            return
        self.rollout = decision.rollout
        assert exposed_agents(self.rollout) == before
        if decision.raise_offer:
            for agent in self.agents.values():
                if agent.install is Install.FAILED:
                    agent.install, agent.took_up = Install.WAITING, False

    @invariant()
    def no_minute_has_more_releases_than_the_pace(self) -> None:
        pace = self.strategy.agents_per_minute
        if pace:
            times = sorted(time for time, _ in self.given)
            assert all(later - earlier >= 60 for earlier, later in zip(times, times[pace:], strict=False))

    @invariant()
    def a_site_fetches_one_after_the_other(self) -> None:
        rate = self.strategy.bytes_per_second_per_site
        if rate:
            for site in {site for _, site in self.told}:
                times = sorted(time for time, where in self.told if where == site)
                assert all(later - earlier >= ARTIFACT_BYTES / rate for earlier, later in pairwise(times))

    @invariant()
    def times_of_releases_are_whole_seconds_and_never_before_they_happened(self) -> None:
        stored = {one.agent_id: one.time for wave in self.rollout.waves for one in wave.releases}
        for time, agent in self.given:
            assert stored[agent].microsecond == 0
            assert timedelta(0) <= stored[agent] - after_seconds(time) < timedelta(seconds=1)


AdmissionMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestAdmissionMachine = AdmissionMachine.TestCase
