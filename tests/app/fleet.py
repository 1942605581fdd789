"""A small fleet around the use cases of deployments and rollouts, in memory and in virtual time."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from controlplane.app.convergence import Convergence
from controlplane.app.deployments import DeploymentRequest, Deployments, DeploymentView
from controlplane.app.notices import Notices
from controlplane.app.ports import Store, UnitOfWork
from controlplane.app.rollout_ticks import RolloutTicks
from controlplane.app.rollouts import RolloutRequest, Rollouts, WhenActive
from controlplane.domain.catalog import Yank
from controlplane.domain.deployment import RuntimePolicy, SamplePolicy
from controlplane.domain.gate import GatePolicy
from controlplane.domain.ids import AgentId, DeploymentId, ModelId
from controlplane.domain.inventory import Observation, ObservedState, SlotState
from controlplane.domain.lease import Lease
from controlplane.domain.rollout import Rollout, RolloutStrategy
from controlplane.domain.wave import parse_wave_sizes
from tests.support.factories import (
    make_agent,
    make_batch,
    make_device,
    make_host,
    make_model,
    make_observed_slot,
    make_shadow_window,
    make_version,
    make_window,
)
from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import CountingIds, VirtualClock

SOLAR = ModelId("solar")
LINE_3 = DeploymentId("line-3")
ANNA = "operators/anna"
"""Whoever gives commands here."""


class RecordingNotices(Notices):
    """Notices that remember what they were told."""

    def __init__(self) -> None:
        super().__init__()
        self.desired: list[tuple[AgentId, ...]] = []
        self.rollouts: list[str] = []

    def desired_changed(self, agent_ids: Any) -> None:
        changed = tuple(agent_ids)
        self.desired.append(changed)
        super().desired_changed(changed)

    def rollout_changed(self, rollout_id: Any) -> None:
        self.rollouts.append(rollout_id)
        super().rollout_changed(rollout_id)


@dataclass
class Fleet:
    """The use cases, and shorthands for what operators and agents do."""

    store: Store = field(default_factory=MemoryStore)
    clock: VirtualClock = field(default_factory=VirtualClock)
    ids: CountingIds = field(default_factory=CountingIds)
    notices: RecordingNotices = field(default_factory=RecordingNotices)
    batches: int = 0

    @property
    def deployments(self) -> Deployments:
        return Deployments(store=self.store, clock=self.clock, ids=self.ids, notifier=self.notices)

    @property
    def rollouts(self) -> Rollouts:
        return Rollouts(store=self.store, clock=self.clock, ids=self.ids, notices=self.notices)

    @property
    def ticks(self) -> RolloutTicks:
        """A controller that has been listening since the beginning."""
        start = VirtualClock()
        return RolloutTicks(store=self.store, clock=start, ids=self.ids, notices=self.notices)

    @property
    def convergence(self) -> Convergence:
        return Convergence(store=self.store, notifier=self.notices)

    async def publish(self, *numbers: int, model: str = SOLAR) -> None:
        async with self.store.write() as work:
            await work.models.add(make_model(id=model))
            for number in numbers:
                await work.models.add_version(make_version(model_id=model, number=number))

    async def enrol(self, *agents: str, **labels: str) -> None:
        async with self.store.write() as work:
            for agent in agents:
                await work.agents.add(make_agent(id=agent, labels=labels or {"line": "3"}))

    async def revoke(self, agent: str) -> None:
        async with self.store.write() as work:
            record = await work.agents.get(AgentId(agent))
            await work.agents.save(replace(record.agent, revoked=True))

    async def yank(self, version: int, *, model: str = SOLAR) -> None:
        async with self.store.write() as work:
            yank = Yank(time=self.clock.now(), reason="it misses cracks", actor=ANNA)
            await work.models.set_yank(ModelId(model), version, yank)

    async def deploy(self, **overrides: Any) -> DeploymentView:
        fields: dict[str, Any] = {
            "deployment_id": LINE_3,
            "model_id": SOLAR,
            "version": 1,
            "selector": "line=3",
            "runtime_policy": RuntimePolicy(),
            "sample_policy": SamplePolicy(),
        }
        return await self.deployments.create(DeploymentRequest(**(fields | overrides)), actor=ANNA)

    async def roll_out(
        self,
        version: int = 2,
        *,
        waves: str = "1,100%",
        request_id: str = "",
        when_active: WhenActive = WhenActive.RULE,
        strategy: Mapping[str, Any] | None = None,
        **gate: Any,
    ) -> Rollout:
        """Start one by ANNA with this gate, and whatever else of the strategy is given."""
        fields: dict[str, Any] = {"gate": GatePolicy(**({"min_inferences": 0} | gate)), **(strategy or {})}
        request = RolloutRequest(
            deployment_id=LINE_3,
            model_id=SOLAR,
            target_version=version,
            strategy=RolloutStrategy(waves=parse_wave_sizes(waves), **fields),
            actor=ANNA,
            when_active=when_active,
            request_id=request_id,
        )
        return await self.rollouts.create(request)

    async def desired(self, agent: str) -> dict[str, int]:
        async with self.store.read() as work:
            state = await work.desired.find(AgentId(agent))
        return {slot.slot: slot.version for slot in state.slots} if state is not None else {}

    async def generation(self, agent: str) -> int:
        async with self.store.read() as work:
            return (await work.agents.get(AgentId(agent))).desired_generation

    async def version(self) -> int | None:
        async with self.store.read() as work:
            return (await work.deployments.get(LINE_3)).version

    async def sync(self, *agents: str, failing: Sequence[int] = ()) -> None:
        """Each agent takes up its desired state, serves it, but for `failing` versions, and says so."""
        async with self.store.write() as work:
            await work.agents.record([await self._heard(work, agent, failing) for agent in agents])

    async def report_devices(self, agent: str, *devices: str) -> None:
        """The agent says that it has these devices, and nothing else anew."""
        async with self.store.write() as work:
            observation = (await work.agents.get(AgentId(agent))).observation
            assert observation is not None
            found = tuple(make_device(device=device) for device in devices)
            await work.agents.record([replace(observation, devices=found)])

    async def infer(self, *agents: str, version: int, inferences: int = 100, errors: int = 0) -> None:
        """Evidence of each agent arrives now."""
        self.batches += 1
        async with self.store.write() as work:
            for agent in agents:
                window = make_window(
                    agent_id=agent,
                    batch=self.batches,
                    version=version,
                    inference_count=inferences,
                    error_count=errors,
                )
                await work.evidence.add(
                    make_batch(
                        agent_id=agent,
                        batch=self.batches,
                        receive_time=self.clock.now(),
                        windows=(window,),
                        results=(),
                    )
                )

    async def compare(
        self, agent: str, *, serving_version: int, candidate_version: int, compared: int, agreed: int
    ) -> None:
        """What the agent compared in shadow arrives now."""
        self.batches += 1
        now = self.clock.now()
        window = make_shadow_window(
            agent_id=agent,
            batch=self.batches,
            serving_version=serving_version,
            candidate_version=candidate_version,
            compared=compared,
            agreed=agreed,
            errors=0,
        )
        batch = make_batch(
            agent_id=agent, batch=self.batches, receive_time=now, windows=(), results=(), shadow_windows=(window,)
        )
        async with self.store.write() as work:
            await work.evidence.add(batch)

    async def tick(self, seconds: float = 1.0) -> None:
        await self.ticks.tick(self.clock.advance(seconds))

    async def _heard(self, work: UnitOfWork, agent: str, failing: Sequence[int]) -> Observation:
        desired = await work.desired.find(AgentId(agent))
        record = await work.agents.get(AgentId(agent))
        before = record.observation.observed if record.observation is not None else ObservedState()
        slots = []
        for wanted in desired.slots if desired is not None else ():
            old = before.slot(wanted.slot)
            failed = wanted.version in failing
            slots.append(
                make_observed_slot(
                    slot=wanted.slot,
                    serving_version=(old.serving_version if old else 0) if failed else wanted.version,
                    target_version=wanted.version,
                    state=SlotState.FAILED if failed else SlotState.SERVING,
                    offer=wanted.offer,
                    prefetched_version=wanted.prefetch_version,
                )
            )
        observed = ObservedState(generation=desired.generation if desired else 0, slots=tuple(slots), boot_count=1)
        return Observation(
            agent_id=AgentId(agent),
            observed=observed,
            receive_time=self.clock.now(),
            host=make_host(),
            devices=(make_device(),),
        )


class CrashError(Exception):
    """The process ended here."""


class MeanwhileStore:
    """A store on which, right before its first write begins, somebody else does something."""

    def __init__(self, store: Store, act: Callable[[], Awaitable[object]]) -> None:
        self._store = store
        self._act: Callable[[], Awaitable[object]] | None = act

    def read(self) -> AbstractAsyncContextManager[UnitOfWork]:
        return self._store.read()

    @asynccontextmanager
    async def write(self, *, lease: Lease | None = None) -> AsyncIterator[UnitOfWork]:
        act, self._act = self._act, None
        if act is not None:
            await act()
        async with self._store.write(lease=lease) as work:
            yield work


class CrashingStore:
    """A store of which one write, counted from 0, fails right before or right after its commit."""

    def __init__(self, store: Store, *, at_write: int, committed: bool) -> None:
        self._store = store
        self._left = at_write
        self._committed = committed

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        async with self._store.read() as work:
            yield work

    @asynccontextmanager
    async def write(self, *, lease: Lease | None = None) -> AsyncIterator[UnitOfWork]:
        self._left -= 1
        async with self._store.write(lease=lease) as work:
            yield work
            if self._left == -1 and not self._committed:
                raise CrashError
        if self._left == -1 and self._committed:
            raise CrashError
