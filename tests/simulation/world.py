"""A whole controller and its fleet under one seed: the real domain and use cases over a store in memory."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from controlplane.app.convergence import Convergence
from controlplane.app.deployments import DeploymentRequest, Deployments
from controlplane.app.notices import Notices
from controlplane.app.ports import Store, UnitOfWork
from controlplane.app.rollouts import RolloutRequest, Rollouts
from controlplane.domain.deployment import RuntimePolicy, SamplePolicy
from controlplane.domain.errors import DomainError
from controlplane.domain.gate import FailureAction, GatePolicy
from controlplane.domain.ids import AgentId, DeploymentId, ModelId
from controlplane.domain.inventory import Observation, ObservedState
from controlplane.domain.rollout import RolloutStrategy
from controlplane.domain.wave import parse_wave_sizes
from tests.simulation.agent import SimulatedAgent
from tests.simulation.checkers import Snapshot, Truth, ViolationError, check, check_liveness
from tests.simulation.events import Event, EventHeap
from tests.simulation.scenario import Scenario, draw_scenario
from tests.support.factories import make_agent, make_batch, make_model, make_version, make_window
from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import CountingIds

MODEL, DEPLOYMENT = ModelId("solar"), DeploymentId("line-3")
SYNC_SECONDS, TICK_SECONDS, CONVERGENCE_SECONDS = 2.0, 1.0, 10.0
UNKNOWN_VERSION = 99
"""Operators sometimes ask for what does not exist."""


class CrashError(Exception):
    """The controller died here."""


class MortalStore:
    """A store at some of whose writes the controller dies, right before or right after the commit."""

    def __init__(self, store: Store, rng: random.Random, crash_share: float) -> None:
        self._store = store
        self._rng = rng
        self.crash_share = crash_share

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        async with self._store.read() as work:
            yield work

    @asynccontextmanager
    async def write(self) -> AsyncIterator[UnitOfWork]:
        dies, commits = self._rng.random() < self.crash_share, self._rng.random() < 0.5
        async with self._store.write() as work:
            yield work
            if dies and not commits:
                raise CrashError
        if dies:
            raise CrashError


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
        self._scenario = scenario
        self._rng = random.Random(f"world/{scenario.seed}")
        self._heap = EventHeap()
        self._memory = MemoryStore()
        self._store = MortalStore(self._memory, self._rng, scenario.crash_share)
        self._ids = CountingIds()
        self._notices = Notices()
        self._agents: dict[AgentId, SimulatedAgent] = {}
        self._revoked: set[AgentId] = set()
        self._arrival: dict[AgentId, float] = {}
        self._truth = Truth()
        self._calm = False
        self._events = 0

    @property
    def rollouts(self) -> Rollouts:
        """A controller that remembers nothing: each use is one by a process that was just started."""
        return Rollouts(store=self._store, clock=self._heap.clock, ids=self._ids, notices=self._notices)

    @property
    def convergence(self) -> Convergence:
        return Convergence(store=self._store, notifier=self._notices)

    async def run(self) -> Outcome:
        """Let everything happen, checking after each event. Raises ViolationError naming rule, seed and time; what
        the code itself raises, and should not, is one too."""
        try:
            await self._set_up()
            await self._run_until(self._scenario.fault_seconds, early=False)
            self._end_faults()
            await self._run_until(self._scenario.fault_seconds + self._scenario.settle_seconds, early=True)
            check_liveness(await self._snapshot(), self._unsettled())
        except Exception as error:
            what = str(error) if isinstance(error, ViolationError) else f"raised: {error!r}"
            raise ViolationError(f"seed {self._scenario.seed} at {self._heap.seconds:.3f} s: {what}") from error
        states = tuple(str(rollout.state) for rollout in (await self._snapshot()).rollouts)
        return Outcome(seed=self._scenario.seed, events=self._events, seconds=self._heap.seconds, rollouts=states)

    async def _run_until(self, seconds: float, *, early: bool) -> None:
        before = await self._snapshot()
        while await self._heap.run_next(until_seconds=seconds):
            self._events += 1
            after = await self._snapshot()
            check(before, after, self._truth)
            before = after
            if early and self._events % 50 == 0 and self._is_quiet(after):
                return

    def _is_quiet(self, snapshot: Snapshot) -> bool:
        try:
            check_liveness(snapshot, self._unsettled())
        except ViolationError:
            return False
        return True

    def _unsettled(self) -> dict[AgentId, str]:
        return {
            agent.id: f"generation {agent.generation}, serves {agent.serving}"
            for agent in self._agents.values()
            if not agent.settled and agent.id not in self._revoked
        }

    async def _snapshot(self) -> Snapshot:
        async with self._memory.read() as work:
            return Snapshot(
                agents={record.agent.id: record for record in await work.agents.list_all()},
                desired=await work.desired.list_all(),
                deployments=await work.deployments.list_all(),
                rollouts=tuple(reversed(await work.rollouts.list(deployment_id=None, before=None, limit=1000))),
                versions=frozenset(v.number for v in await work.models.list_versions(MODEL, before=None, limit=1000)),
            )

    # --- setting the scene ---

    async def _set_up(self) -> None:
        scenario, rng = self._scenario, self._rng
        async with self._memory.write() as work:
            await work.models.add(make_model(id=MODEL))
            for version in scenario.versions:
                await work.models.add_version(make_version(model_id=MODEL, number=version.number))
        for _ in range(scenario.agents):
            await self._enrol()
        memory = Deployments(store=self._memory, clock=self._heap.clock, ids=self._ids, notifier=self._notices)
        await memory.create(
            DeploymentRequest(
                deployment_id=DEPLOYMENT,
                model_id=MODEL,
                version=scenario.first_version,
                selector="line=3",
                runtime_policy=RuntimePolicy(),
                sample_policy=SamplePolicy(),
            )
        )
        self._repeat(TICK_SECONDS, self._tick)
        self._repeat(CONVERGENCE_SECONDS, self._converge)
        acts: list[tuple[int, Event]] = [
            (scenario.commands, self._command),
            (scenario.late_agents, self._join_late),
            (scenario.revocations, self._revoke),
            (scenario.restarts, self._restart_one),
            (scenario.absences, self._send_away),
        ]
        for count, act in acts:
            for _ in range(count):
                self._heap.at(rng.uniform(1.0, scenario.fault_seconds), act)
        self._heap.at(rng.uniform(1.0, 20.0), self._start_rollout)

    def _repeat(self, interval_seconds: float, act: Event) -> None:
        async def again() -> None:
            self._heap.after(interval_seconds, again)
            await act()

        self._heap.after(interval_seconds, again)

    def _end_faults(self) -> None:
        self._calm = True
        self._store.crash_share = 0.0
        for agent in self._agents.values():
            agent.online = True

    # --- the controller's jobs, and what its death does to them ---

    async def _survive(self, act: Event) -> None:
        """Let the controller act; that it dies of a crash, or refuses, is part of the game."""
        try:
            await act()
        except (CrashError, DomainError):
            return
        except ExceptionGroup as group:
            _, others = group.split(CrashError)
            if others is not None:
                raise

    async def _tick(self) -> None:
        await self._survive(lambda: self.rollouts.tick(self._heap.clock.now()))

    async def _converge(self) -> None:
        async def run() -> None:
            await self.convergence.run()

        await self._survive(run)

    # --- operators ---

    async def _command(self) -> None:
        rng, snapshot = self._rng, await self._snapshot()
        if not snapshot.rollouts or rng.random() < 0.3:
            await self._start_rollout()
            return
        rollout_id = rng.choice(snapshot.rollouts[-2:]).id
        rollouts = self.rollouts
        command = rng.choice([rollouts.pause, rollouts.resume, rollouts.abort, rollouts.rollback, rollouts.retry])

        async def give() -> None:
            await command(rollout_id)

        await self._survive(give)

    async def _start_rollout(self) -> None:
        rng = self._rng
        gate = GatePolicy(
            min_inferences=rng.choice([0, 10, 40]),
            max_errors_per_mille=rng.choice([0, 50, 1000]),
            max_failed_installs=rng.choice([0, 0, 1]),
            on_failure=rng.choice(list(FailureAction)),
        )
        waves = parse_wave_sizes(rng.choice(["100%", "1,100%", "1,50%,100%", "1,2,3,100%", "10%,60%,100%"]))
        strategy = RolloutStrategy(waves=waves, bake_seconds=rng.choice([0.0, 5.0, 20.0]), gate=gate)
        numbers = [version.number for version in self._scenario.versions]
        request = RolloutRequest(
            deployment_id=DEPLOYMENT,
            model_id=MODEL,
            target_version=UNKNOWN_VERSION if rng.random() < 0.05 else rng.choice(numbers),
            strategy=strategy,
        )

        async def start() -> None:
            await self.rollouts.create(request)

        await self._survive(start)

    async def _revoke(self) -> None:
        agent_id = self._rng.choice(sorted(self._agents))
        if agent_id in self._revoked:
            return
        self._revoked.add(agent_id)
        async with self._memory.write() as work:
            record = await work.agents.get(agent_id)
            await work.agents.save(replace(record.agent, revoked=True))

    # --- agents ---

    async def _enrol(self) -> AgentId:
        agent_id = AgentId(f"st-{len(self._agents) + 1}")
        versions = {version.number: version for version in self._scenario.versions}
        agent = SimulatedAgent(agent_id, versions, random.Random(f"{self._scenario.seed}/{agent_id}"))
        self._agents[agent_id] = agent
        async with self._memory.write() as work:
            await work.agents.add(make_agent(id=agent_id, labels={"line": "3"}))
        self._heap.after(self._rng.uniform(0.0, SYNC_SECONDS), lambda: self._live(agent))
        return agent_id

    async def _join_late(self) -> None:
        await self._enrol()
        await self._converge()

    async def _live(self, agent: SimulatedAgent) -> None:
        """One interval of an agent: inferences always, a sync when it is in reach."""
        self._heap.after(SYNC_SECONDS, lambda: self._live(agent))
        agent.infer()
        lost = not self._calm and self._rng.random() < self._scenario.loss
        if agent.online and not lost and agent.id not in self._revoked:
            observed = agent.observe()
            self._heap.at(self._arrives(agent), lambda: self._hear(agent, observed))

    def _arrives(self, agent: SimulatedAgent) -> float:
        """When a message sent now arrives; what one agent sends and is sent stays in order, as in a stream."""
        arrival = self._heap.seconds + self._rng.uniform(0.01, self._scenario.delay_seconds_max)
        self._arrival[agent.id] = max(self._arrival.get(agent.id, 0.0), arrival)
        return self._arrival[agent.id]

    async def _hear(self, agent: SimulatedAgent, observed: ObservedState) -> None:
        """The controller hears an agent: it stores what it says and its spool, and answers with its desired state."""
        if agent.id in self._revoked:
            return
        now = self._heap.clock.now()
        async with self._memory.write() as work:
            await work.agents.record([Observation(agent_id=agent.id, observed=observed, receive_time=now)])
            for counted in agent.spool:
                agent.batches += 1
                window = make_window(
                    agent_id=agent.id,
                    batch=agent.batches,
                    slot=MODEL,
                    version=counted.version,
                    inference_count=counted.inferences,
                    error_count=counted.errors,
                )
                batch = make_batch(
                    agent_id=agent.id, batch=agent.batches, receive_time=now, windows=(window,), results=()
                )
                await work.evidence.add(batch)
                inferences = self._truth.inferences
                inferences[counted.version] = inferences.get(counted.version, 0) + counted.inferences
            agent.spool.clear()
            desired = await work.desired.find(agent.id)
        if desired is not None and desired.generation != observed.generation:

            async def answer() -> None:
                if agent.online and agent.take_up(desired):
                    self._begin_install(agent)

            self._heap.at(self._arrives(agent), answer)

    def _begin_install(self, agent: SimulatedAgent) -> None:
        wanted, boots = agent.install()

        async def finish() -> None:
            version = agent.finish_install(wanted, boots)
            if version is not None:
                self._truth.installed.setdefault(version, set()).add(agent.id)

        self._heap.after(self._rng.uniform(0.5, 8.0), finish)

    async def _restart_one(self) -> None:
        agent = self._agents[self._rng.choice(sorted(self._agents))]
        if agent.restart():
            self._begin_install(agent)

    async def _send_away(self) -> None:
        agent = self._agents[self._rng.choice(sorted(self._agents))]
        agent.online = False

        async def come_back() -> None:
            agent.online = True

        self._heap.after(self._rng.uniform(5.0, 60.0), come_back)


async def simulate(seed: int) -> Outcome:
    """Run one seed's world from start to end; raises ViolationError."""
    return await World(draw_scenario(seed)).run()
