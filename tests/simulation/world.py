"""A whole controller and its fleet under one seed: the real domain and use cases over a store in memory."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from controlplane import limits
from controlplane.app.deployments import DeploymentRequest, Deployments
from controlplane.app.notices import Notices
from controlplane.domain.assignment import DesiredState
from controlplane.domain.deployment import RuntimePolicy, SamplePolicy
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import Observation, ObservedState
from tests.simulation.agent import Sealed, SimulatedAgent, Work
from tests.simulation.checkers import check, check_last, check_liveness
from tests.simulation.controller import Replica
from tests.simulation.events import Event, EventHeap
from tests.simulation.measurements import WINDOW_SECONDS, make_evidence, make_weights
from tests.simulation.network import Network
from tests.simulation.operators import ALICE, Operators
from tests.simulation.rollout_checkers import TICK_SECONDS
from tests.simulation.scenario import Scenario, Station, draw_scenario
from tests.simulation.snapshot import Snapshot, Swap, Truth, ViolationError, take_snapshot
from tests.support.factories import make_agent, make_model, make_version
from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import CountingIds

SYNC_SECONDS, CONVERGENCE_SECONDS = 4.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a seed's history ended."""

    seed: int
    events: int
    seconds: float
    rollouts: tuple[str, ...]
    """State of each, oldest first."""


class World:
    """Everything that happens under one scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.rng = random.Random(f"world/{scenario.seed}")
        self.heap = EventHeap()
        self.memory = MemoryStore(now=self.heap.clock.now)
        self.ids = CountingIds()
        self.network = Network(self.heap, scenario.faults, random.Random(f"network/{scenario.seed}"))
        self.replicas = [self._replica(number) for number in range(scenario.controllers)]
        self.agents: dict[AgentId, SimulatedAgent] = {}
        self.people = Operators(scenario, self.replicas, random.Random(f"people/{scenario.seed}"), self.snapshot)
        self.calm = False
        self._truth = Truth()
        self._events = 0
        self._seen: object = None
        self._snapshot: Snapshot | None = None

    def _replica(self, number: int) -> Replica:
        rng = random.Random(f"replica/{self.scenario.seed}/{number}")
        crash_share = self.scenario.faults.crash_share
        return Replica(f"c{number}", self.memory, self.heap, self.ids, rng, crash_share=crash_share)

    async def run(self) -> Outcome:
        """Let everything happen, checking after each event. Raises ViolationError naming rule, seed and time; what
        the code itself raises, and should not, is one too."""
        scenario = self.scenario
        try:
            await self.set_up()
            await self.run_until(scenario.fault_seconds, early=False)
            await self._end_faults()
            await self.run_until(scenario.fault_seconds + scenario.settle_seconds, early=True)
            check_liveness(await self.snapshot(), self._unsettled())
            await self._roll_out_once_more()
        except Exception as error:
            what = str(error) if isinstance(error, ViolationError) else f"raised: {error!r}"
            raise ViolationError(f"seed {scenario.seed} at {self.heap.seconds:.3f} s: {what}") from error
        states = tuple(str(rollout.state) for rollout in (await self.snapshot()).rollouts)
        return Outcome(seed=scenario.seed, events=self._events, seconds=self.heap.seconds, rollouts=states)

    async def _roll_out_once_more(self) -> None:
        """Whatever is left of earlier rollouts, a new one begins at once and comes to its end."""
        started = await self.people.start_last()
        await self.run_until(self.heap.seconds + self.scenario.settle_seconds, early=True)
        after = await self.snapshot()
        check_liveness(after, self._unsettled())
        check_last(after, started)

    async def run_until(self, seconds: float, *, early: bool) -> None:
        """Let happen what happens until then; stop earlier, if that is wanted, once everything is at rest."""
        before = await self.snapshot()
        while await self.heap.run_next(until_seconds=seconds):
            self._events += 1
            after = await self.snapshot()
            self._note_retries(before, after)
            if after is not before or self._truth.swaps:
                check(before, after, self._truth)
                self._truth.swaps.clear()
            before = after
            if early and self._events % 50 == 0 and self._is_quiet(after):
                return

    def _note_retries(self, before: Snapshot, after: Snapshot) -> None:
        offers = {deployment.id: deployment.offer for deployment in before.deployments}
        for deployment in after.deployments:
            if deployment.offer > offers.get(deployment.id, 0):
                self._truth.retried[deployment.id] = after.now

    async def snapshot(self) -> Snapshot:
        """What is stored now; the very same as before where nothing was written."""
        if self._snapshot is None or self._seen is not self.memory._tables:
            self._seen = self.memory._tables
            self._snapshot = await take_snapshot(self.memory, self.heap.clock.now(), self._snapshot)
        return self._snapshot

    def _is_quiet(self, snapshot: Snapshot) -> bool:
        try:
            check_liveness(snapshot, self._unsettled())
        except ViolationError:
            return False
        return True

    def _unsettled(self) -> dict[AgentId, str]:
        return {
            agent.id: f"generation {agent.generation}, wants {agent.disk.wanted}, has {agent.disk.slots}"
            for agent in self.agents.values()
            if not (agent.settled or agent.dead) and not self._is_revoked(agent.id)
        }

    # --- setting the scene ---

    async def set_up(self, *, people: bool = True) -> None:
        """Let there be models, boxes, deployments and controllers; and `people` who ask for rollouts."""
        scenario = self.scenario
        async with self.memory.write() as work:
            for model_id, versions in scenario.versions.items():
                await work.models.add(make_model(id=model_id))
                for version in versions:
                    artifact = make_weights(f"{model_id}:{version.number}")
                    await work.models.add_version(
                        make_version(model_id=model_id, number=version.number, artifact=artifact)
                    )
        for station in scenario.stations:
            if not station.late:
                await self._enrol(station)
        deployments = Deployments(store=self.memory, clock=self.heap.clock, ids=self.ids, notifier=Notices())
        for standing in scenario.standing:
            await deployments.create(
                DeploymentRequest(
                    deployment_id=standing.deployment_id,
                    model_id=standing.model_id,
                    version=standing.version,
                    selector=standing.selector,
                    runtime_policy=RuntimePolicy(),
                    sample_policy=SamplePolicy(),
                    priority=standing.priority,
                    allow_empty=True,
                ),
                actor=ALICE,
            )
        for replica in self.replicas:
            await replica.lead()
            self._repeat(limits.LEASE_RENEW_SECONDS, replica.lead)
            self._repeat(TICK_SECONDS, partial(self._tick, replica))
            self._repeat(CONVERGENCE_SECONDS, partial(self._converge, replica))
        self._plan_events(people=people)

    def _plan_events(self, *, people: bool) -> None:
        scenario, faults = self.scenario, self.scenario.faults
        for station in scenario.stations:
            if station.late:
                self.heap.at(self._some_time(), partial(self._join_late, station))
        for count, act in (
            *(self._acts_of_people() if people else ()),
            (faults.restarts, self._restart_one),
            (faults.absences, self._send_away),
            (faults.flaps, self._flap),
            (faults.partitions, self._part_site),
            (faults.restored_disks, self._restore_disk),
            (faults.stops, self._stop_controller),
        ):
            for _ in range(count):
                self.heap.at(self._some_time(), act)
        if people:
            self.heap.at(self.rng.uniform(1.0, 20.0), self.people.start)

    def _acts_of_people(self) -> Sequence[tuple[int, Event]]:
        acts, people = self.scenario.acts, self.people
        return [
            (self.scenario.commands, people.command),
            (acts.get("relabel", 0), people.relabel),
            (acts.get("pin", 0), people.pin),
            (acts.get("yank", 0), people.yank),
            (acts.get("revoke", 0), people.revoke),
            (6, people.approve),
        ]

    def _some_time(self) -> float:
        return self.rng.uniform(1.0, self.scenario.fault_seconds)

    def _repeat(self, interval_seconds: float, act: Event) -> None:
        async def again() -> None:
            self.heap.after(interval_seconds, again)
            await act()

        self.heap.after(interval_seconds, again)

    async def _end_faults(self) -> None:
        self.calm = self.network.calm = True
        for replica in self.replicas:
            replica.store.crash_share = 0.0
            await replica.wake()

    # --- controllers ---

    async def _tick(self, replica: Replica) -> None:
        async def tick() -> None:
            now = self.heap.clock.now()
            await replica.ticks.tick(now)
            self._truth.tick_time = now

        await replica.work(tick)

    async def _converge(self, replica: Replica) -> None:
        await replica.work(lambda: replica.convergence.round(self.heap.clock.now()))

    async def _stop_controller(self) -> None:
        if self.calm:
            return
        replica = self.rng.choice(self.replicas)
        replica.stop_at_next_write()
        self.heap.after(self.rng.uniform(5.0, 60.0), replica.wake)

    # --- agents ---

    async def _enrol(self, station: Station) -> None:
        scenario = self.scenario
        versions = {
            model: {version.number: version for version in versions} for model, versions in scenario.versions.items()
        }
        agent = SimulatedAgent(station, versions, random.Random(f"agent/{scenario.seed}/{station.agent_id}"))
        self.agents[agent.id] = agent
        async with self.memory.write() as work:
            await work.agents.add(make_agent(id=agent.id, labels=station.labels))
        self.heap.after(self.rng.uniform(0.0, SYNC_SECONDS), lambda: self._sync(agent))
        self.heap.after(self.rng.uniform(0.0, WINDOW_SECONDS), lambda: self._report(agent))

    async def _join_late(self, station: Station) -> None:
        await self._enrol(station)

    def _is_revoked(self, agent_id: AgentId) -> bool:
        return self.memory._tables.agents[agent_id].revoked

    def _talks(self, agent: SimulatedAgent) -> bool:
        return not agent.dead and not self._is_revoked(agent.id)

    async def _sync(self, agent: SimulatedAgent) -> None:
        """The agent sends everything it observes."""
        self.heap.after(SYNC_SECONDS, lambda: self._sync(agent))
        if self._talks(agent):
            observed, host = agent.observe(self.heap.clock.now()), agent.host(self.heap.seconds)

            async def arrive() -> None:
                if not self._is_revoked(agent.id):
                    await self._hear(agent, observed, host)

            self.network.stream(agent.id, "up", arrive)

    async def _hear(self, agent: SimulatedAgent, observed: ObservedState, host: Any) -> None:
        async with self.memory.write() as work:
            await work.agents.record(
                [
                    Observation(
                        agent_id=agent.id,
                        observed=observed,
                        receive_time=self.heap.clock.now(),
                        host=host,
                        devices=agent.station.box.devices,
                    )
                ]
            )
            desired = await work.desired.find(agent.id)
        if desired is not None and desired.generation != observed.generation:
            self.network.stream(agent.id, "down", lambda: self._answer(agent, desired))

    async def _answer(self, agent: SimulatedAgent, desired: DesiredState) -> None:
        works = agent.take_up(desired, self.heap.seconds)
        self._begin(agent, works)
        for work in works:
            if not work.prefetch:  # what failed before, and was not offered again, begins nothing
                now, model = self.heap.clock.now(), work.slot.slot
                self._truth.swaps.append(Swap(time=now, agent_id=agent.id, model_id=model, version=work.version))

    def _begin(self, agent: SimulatedAgent, works: Sequence[Work]) -> None:
        for work in works:

            async def finish(work: Work = work) -> None:
                installed = agent.finish(work, self.heap.seconds)
                if installed is not None:
                    self._truth.installed.setdefault(installed, set()).add(agent.id)

            self.heap.after(work.seconds, finish)

    async def _report(self, agent: SimulatedAgent) -> None:
        """The agent closes a window, and sends every batch that was not acknowledged yet."""
        self.heap.after(WINDOW_SECONDS, lambda: self._report(agent))
        agent.seal_window(self.scenario.inferences_per_window)
        if self._talks(agent):
            for sealed in agent.spool:
                self.network.call(agent.id, partial(self._store_batch, agent, sealed))

    async def _store_batch(self, agent: SimulatedAgent, sealed: Sealed) -> None:
        if self._is_revoked(agent.id):
            return
        async with self.memory.write() as work:
            stored = await work.evidence.add(make_evidence(agent.id, sealed, self.heap.clock.now()))
        if stored:
            for counted in sealed.windows:
                key = (counted.model_id, counted.version)
                self._truth.inferences[key] = self._truth.inferences.get(key, 0) + counted.inferences

        async def acknowledge() -> None:
            agent.spool = [kept for kept in agent.spool if kept.batch != sealed.batch]

        self.network.call(agent.id, acknowledge)

    # --- faults ---

    def _anybody(self) -> SimulatedAgent:
        return self.agents[self.rng.choice(sorted(self.agents))]

    async def _restart_one(self) -> None:
        agent = self._anybody()
        agent.image()
        self.network.reconnect(agent.id)
        self._begin(agent, agent.restart(self.heap.seconds))

    async def _restore_disk(self) -> None:
        agent = self._anybody()
        agent.image()

        async def restore() -> None:
            self.network.reconnect(agent.id)
            self._truth.restored[agent.id] = self.heap.clock.now()
            self._begin(agent, agent.restore(self.heap.seconds))

        self.heap.after(self.rng.uniform(10.0, 90.0), restore)

    async def _send_away(self) -> None:
        self.network.cut((self._anybody().id,), self.rng.uniform(5.0, 80.0))

    async def _flap(self) -> None:
        agent = self._anybody()
        for number in range(6):
            self.heap.after(number * 9.0, lambda: self._flicker(agent))

    async def _flicker(self, agent: SimulatedAgent) -> None:
        self.network.cut((agent.id,), self.rng.uniform(1.0, 8.0))

    async def _part_site(self) -> None:
        site = self._anybody().station.site
        agents = tuple(agent.id for agent in self.agents.values() if agent.station.site == site)
        self.network.cut(agents, self.rng.uniform(10.0, 70.0))


async def simulate(seed: int) -> Outcome:
    """Run one seed's world from start to end; raises ViolationError."""
    return await World(draw_scenario(seed)).run()
