"""Plans: what a rollout would do, found on the inventory as it is, with the functions that a real start uses.

A plan is refused for exactly what the start would be refused for, and changes nothing. Its waves are those that the
rollout will have if the inventory stays as it is: deployment and version alone draw the order.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane import limits
from controlplane.app.estimates import Candidate, WaveEstimate, estimate
from controlplane.app.ports import Clock, Store, UnitOfWork
from controlplane.app.rollout_steps import Scene, plan_targets, read_scene
from controlplane.app.rollouts import Arrangement, RolloutRequest, arrange, check_request, find_unended
from controlplane.app.strategies import check_strategy
from controlplane.app.windows import Windows
from controlplane.domain.assignment import find_contenders, holders
from controlplane.domain.catalog import ModelVersion
from controlplane.domain.deployment import Deployment
from controlplane.domain.device_class import UNKNOWN, device_class
from controlplane.domain.ids import AgentId, Digest, RolloutId
from controlplane.domain.inventory import AgentRecord, AgentState, ObservedSlot
from controlplane.domain.pin import Pin
from controlplane.domain.plan import LeftOut, PlannedTarget, PlannedWave, RolloutPlan
from controlplane.domain.rollout import RolloutState, Wave, WindowScope, needs_approval
from controlplane.domain.selector import facts, parse_selector


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What a request is planned or rehearsed on, read at one moment."""

    request: RolloutRequest
    deployment: Deployment
    scene: Scene
    target: ModelVersion
    waves: tuple[Wave, ...]
    arrangement: Arrangement
    candidates: Mapping[AgentId, Candidate]
    """Each target of the waves."""
    pins: Mapping[AgentId, Pin]
    """Those of the deployment's model."""
    now: datetime


class Planning:
    """Plans rollouts."""

    def __init__(
        self, *, store: Store, clock: Clock, silent_seconds_max: float = limits.AGENT_SILENT_SECONDS_MAX
    ) -> None:
        self._store = store
        self._clock = clock
        self._silent_seconds_max = silent_seconds_max

    async def plan(self, request: RolloutRequest) -> RolloutPlan:
        """Return what the rollout would do. Raises what `Rollouts.create` raises."""
        inventory = await self.read(request)
        windows = Windows(request.strategy.windows)
        strategy, now = request.strategy, inventory.now
        estimates: Sequence[WaveEstimate] = [WaveEstimate()] * len(inventory.waves)
        if inventory.arrangement.behind is None:
            estimates = estimate(strategy, inventory.waves, inventory.candidates, windows, now)
        targets = tuple(
            _target(inventory.scene.records[agent], wave.index, inventory.candidates[agent], windows, inventory)
            for wave in inventory.waves
            for agent in wave.agents
        )
        return RolloutPlan(
            waves=tuple(
                _wave(wave, inventory, estimated) for wave, estimated in zip(inventory.waves, estimates, strict=True)
            ),
            targets=targets,
            left_out=_left_out(inventory),
            related_id=_related(inventory.arrangement),
            warnings=tuple(_warnings(inventory, targets, estimates)),
        )

    async def read(self, request: RolloutRequest) -> Inventory:
        """Return what the request is planned on. Raises what `Rollouts.create` raises."""
        check_strategy(request.strategy)
        now = self._clock.now()
        async with self._store.read() as uow:
            scene = await read_scene(uow)
            deployment = await check_request(uow, request, scene)
            arrangement = arrange(request.when_active, await find_unended(uow, deployment.id), deployment.id)
            target = await uow.models.get_version(deployment.model_id, request.target_version)
            records = [scene.records[agent] for agent in scene.targets[deployment.id]]
            present = await _read_present(uow, deployment, records)
            rates = await _read_rates(uow, deployment, records, now)
            pins = {pin.agent_id: pin for pin in await uow.pins.list_all() if pin.model_id == deployment.model_id}
        candidates = {
            record.agent.id: Candidate(
                agent_id=record.agent.id,
                labels=facts(record),
                device_class=device_class(record),
                fetch_bytes=_missing_bytes(target, present, _slot(record, deployment)),
                connected=record.state(now=now, silent_seconds_max=self._silent_seconds_max) is AgentState.CONNECTED,
                inferences_per_second=rates.get(record.agent.id, 0.0),
            )
            for record in records
        }
        return Inventory(
            request=request,
            deployment=deployment,
            scene=scene,
            target=target,
            waves=plan_targets(request.strategy, deployment, request.target_version, scene),
            arrangement=arrangement,
            candidates=candidates,
            pins=pins,
            now=now,
        )


def _slot(record: AgentRecord, deployment: Deployment) -> ObservedSlot | None:
    return record.observation.observed.slot(deployment.model_id) if record.observation is not None else None


async def _read_present(
    uow: UnitOfWork, deployment: Deployment, records: Sequence[AgentRecord]
) -> Mapping[int, frozenset[Digest]]:
    """The files of each version that some agent has, by its number."""
    slots = [_slot(record, deployment) for record in records]
    numbers = {number for slot in slots if slot for number in (slot.serving_version, slot.prefetched_version) if number}
    found = await uow.models.get_versions((deployment.model_id, number) for number in sorted(numbers))
    return {number: frozenset(file.digest for file in version.artifact.files) for (_, number), version in found.items()}


def _missing_bytes(target: ModelVersion, present: Mapping[int, frozenset[Digest]], slot: ObservedSlot | None) -> int:
    """Bytes of the version that the agent would fetch: files of what it serves or has prepared are there already."""
    there: frozenset[Digest] = frozenset()
    if slot is not None:
        there = present.get(slot.serving_version, there) | present.get(slot.prefetched_version, there)
    return sum(file.size_bytes for file in target.artifact.files if file.digest not in there)


async def _read_rates(
    uow: UnitOfWork, deployment: Deployment, records: Sequence[AgentRecord], now: datetime
) -> Mapping[AgentId, float]:
    """Inferences a second of each agent in the last hour, by whatever version it serves."""
    slots = [_slot(record, deployment) for record in records]
    since = now - timedelta(seconds=limits.PLAN_TRAFFIC_SECONDS)
    rates: Counter[AgentId] = Counter()
    for number in sorted({slot.serving_version for slot in slots if slot is not None and slot.serving_version}):
        for count in await uow.evidence.count_inferences(deployment.model_id, number, received_since=since):
            rates[count.agent_id] += count.inferences
    return {agent_id: inferences / limits.PLAN_TRAFFIC_SECONDS for agent_id, inferences in rates.items()}


def _related(arrangement: Arrangement) -> RolloutId | None:
    if arrangement.behind is not None:
        return arrangement.behind.id
    return arrangement.supersedes[0].id if arrangement.supersedes else None


def _wave(wave: Wave, inventory: Inventory, estimated: WaveEstimate) -> PlannedWave:
    members = [inventory.candidates[agent] for agent in wave.agents]
    return PlannedWave(
        index=wave.index,
        size=wave.size,
        agents=wave.agents,
        device_classes=tuple(sorted({member.device_class for member in members})),
        fetch_bytes=sum(member.fetch_bytes for member in members),
        admit_time_estimate=estimated.admit_time,
        pass_time_estimate=estimated.pass_time,
        needs_approval=needs_approval(inventory.request.strategy, wave.index),
    )


def _target(
    record: AgentRecord, wave: int, candidate: Candidate, windows: Windows, inventory: Inventory
) -> PlannedTarget:
    host = record.observation.host if record.observation is not None else None
    # A box that tells no size of its disk tells no free bytes either.
    free = host.disk_free_bytes if host is not None and host.disk_bytes else None
    opens = windows.next_open(WindowScope.SWAP, candidate.labels, inventory.now)
    return PlannedTarget(
        agent_id=record.agent.id,
        wave=wave,
        device_class=candidate.device_class,
        fetch_bytes=candidate.fetch_bytes,
        disk_free_bytes=free,
        connected=candidate.connected,
        swap_time_earliest=opens,
        warning="; ".join(_objections(record, candidate, free, inventory)),
    )


def _objections(record: AgentRecord, candidate: Candidate, free: int | None, inventory: Inventory) -> Iterable[str]:
    """What speaks against one target."""
    slot = _slot(record, inventory.deployment)
    if not candidate.connected:
        yield "never heard" if record.observation is None else "out of reach"
    if free is not None and free < candidate.fetch_bytes:
        yield f"too little disk: {candidate.fetch_bytes} bytes to fetch, {free} free"
    if slot is not None and slot.serving_version == inventory.request.target_version:
        yield "serves the version already"


def _left_out(inventory: Inventory) -> tuple[LeftOut, ...]:
    """Agents that the deployment's selector matches and that are no targets, each with the reason."""
    deployment, scene = inventory.deployment, inventory.scene
    selector = parse_selector(deployment.selector, field="selector")
    targets = frozenset(scene.targets[deployment.id])
    left = [
        record
        for agent_id, record in sorted(scene.records.items())
        if agent_id not in targets and selector.matches(facts(record))
    ]
    contenders = find_contenders(left, tuple(scene.deployments.values()))
    return tuple(
        _leave_out(record, deployment, contenders.get(record.agent.id, ()), pin=inventory.pins.get(record.agent.id))
        for record in left
    )


def _leave_out(
    record: AgentRecord, deployment: Deployment, contenders: Sequence[Deployment], *, pin: Pin | None
) -> LeftOut:
    agent_id = record.agent.id
    if record.agent.revoked:
        return LeftOut(agent_id=agent_id, reason="REVOKED", message="its certificates are revoked")
    holder = holders(contenders).get(deployment.model_id)
    if holder is not None and holder.id != deployment.id:
        message = f"deployments/{holder.id} holds it"
        message += f", with priority {holder.priority}" if holder.priority > deployment.priority else ", as the older"
        return LeftOut(agent_id=agent_id, reason="HELD_BY_OTHER_DEPLOYMENT", message=message)
    assert pin is not None, "who matches, is held and is no target is pinned"
    message = f"{pin.actor} pinned it at version {pin.version}: {pin.reason}"
    return LeftOut(agent_id=agent_id, reason="PINNED", message=message)


def _warnings(
    inventory: Inventory, targets: Sequence[PlannedTarget], estimates: Sequence[WaveEstimate]
) -> Iterable[str]:
    """What an operator should know before he starts it."""
    yield from _order_warnings(inventory)
    yield from _fleet_warnings(inventory, targets)
    strategy = inventory.request.strategy
    if never := [target.agent_id for target in targets if target.swap_time_earliest is None]:
        yield f"the swap window of {_agents(never)} never opens"
    end, behind = estimates[-1].pass_time, inventory.arrangement.behind is not None
    deadline = inventory.now + timedelta(seconds=strategy.deadline_seconds) if strategy.deadline_seconds else None
    if end is None and not behind:
        yield "its end cannot be estimated: no traffic is known of the last hour, or a window does not open"
    elif end is not None and deadline is not None and end > deadline:
        yield f"it would end at {end:%Y-%m-%dT%H:%M:%SZ}, after its deadline of {deadline:%Y-%m-%dT%H:%M:%SZ}"


def _order_warnings(inventory: Inventory) -> Iterable[str]:
    deployment, request, arrangement = inventory.deployment, inventory.request, inventory.arrangement
    if arrangement.behind is not None:
        yield f"it waits until rollouts/{arrangement.behind.id} has ended, so its times are not estimated"
    for rollout in arrangement.supersedes:
        word = "queued" if rollout.state is RolloutState.QUEUED else "active"
        yield f"it takes the place of rollouts/{rollout.id}, which is {word}"
    if deployment.version == request.target_version:
        yield f"deployments/{deployment.id} is at version {request.target_version} already"
    if deployment.version is None:
        yield f"deployments/{deployment.id} has no version yet: a rollback takes the model off its agents"
    elif deployment.version in inventory.scene.yanked_of(deployment.model_id):
        yield f"version {deployment.version}, to which a rollback returns, was yanked"


def _fleet_warnings(inventory: Inventory, targets: Sequence[PlannedTarget]) -> Iterable[str]:
    full = [t.agent_id for t in targets if t.disk_free_bytes is not None and t.disk_free_bytes < t.fetch_bytes]
    if full:
        yield f"too little disk: {_agents(full)}"
    if silent := [target.agent_id for target in targets if not target.connected]:
        yield f"out of reach: {_agents(silent)}"
    if unknown := [target.agent_id for target in targets if target.device_class == UNKNOWN]:
        yield f"device class not known yet: {_agents(unknown)}"
    rates: Counter[str] = Counter()
    for candidate in inventory.candidates.values():
        rates[candidate.device_class] += candidate.inferences_per_second > 0
    if idle := [device for device, busy in sorted(rates.items()) if not busy]:
        yield f"no inferences in the last hour on {', '.join(idle)}: the gate would wait for them"


def _agents(ids: Sequence[AgentId]) -> str:
    shown = ", ".join(ids[: limits.PLAN_NAMES_MAX])
    more = len(ids) - limits.PLAN_NAMES_MAX
    return shown + (f" and {more} more" if more > 0 else "")
