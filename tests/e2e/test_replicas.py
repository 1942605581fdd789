"""Two controllers on one PostgreSQL: one leads, the other steps in, and agents of either hear of a change at once."""

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from lineside.v1 import rollout_pb2

from controlplane import limits, observability
from controlplane.app.leadership import LEASE_NAME
from controlplane.app.ports import AuditFilter
from controlplane.client import Client
from controlplane.domain.audit import AuditEvent
from controlplane.domain.lease import Lease
from controlplane.domain.rollout import Rollout, RolloutState, WaveState
from controlplane.store import SqlStore, open_store
from tests.bench import bulk_enrolment
from tests.bench.protocol_agent import Fleet, ProtocolAgent
from tests.bench.scale_load import tls_context
from tests.support.controller import ControllerProcess
from tests.support.factories import make_artifact, make_model, make_version

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

AGENTS = 4
WAIT_SECONDS = 60.0
LOOK_SECONDS = 0.05
TAKE_OVER_SECONDS = limits.LEASE_SECONDS + limits.LEASE_TRY_SECONDS + 5.0
"""The lease runs out, another tries; the rest is for a busy machine."""


@dataclass
class Replicas:
    """Two controllers, and agents that are connected to either."""

    folder: Path
    database_url: str
    store: SqlStore
    first: ControllerProcess = field(init=False)
    second: ControllerProcess = field(init=False)
    identities: Path = field(init=False)
    connected: list[ProtocolAgent] = field(default_factory=list)

    def __post_init__(self) -> None:
        options = ("--database-url", self.database_url, "--artifact-url", (self.folder / "blobs").as_uri())
        self.first = ControllerProcess(folder=self.folder / "first", options=(*options, "--sync-interval", "30s"))
        self.second = ControllerProcess(folder=self.folder / "second", options=self.first.options)
        self.identities = self.folder / "identities"

    async def start(self) -> None:
        """Start both, the first as the leader; four agents are enrolled and a model has two versions."""
        (self.folder / "blobs").mkdir()
        assert self.first.init("--database-url", self.database_url).returncode == 0
        joined = self.second.init("--database-url", self.database_url, "--join", str(self.first.folder))
        assert joined.returncode == 0, joined.stderr
        await asyncio.to_thread(self.first.start)
        await self.until(lambda: self.leads(self.first), what="the first to lead")
        await asyncio.to_thread(self.second.start)
        certificates = bulk_enrolment.sign(self.first.folder / "pki", self.identities, agents=AGENTS)
        await bulk_enrolment.enrol(self.store, certificates)
        async with self.store.write() as work:
            await work.models.add(make_model(latest_version=2))
            for number in (1, 2):
                version = make_version(number=number, uid=f"uid-{number}", artifact=make_artifact(f"weights {number}"))
                await work.models.add_version(version)

    async def connect(self, controller: ControllerProcess, indexes: Sequence[int]) -> Fleet:
        """Connect these agents to the controller; return when each was answered."""
        host, _, port = controller.addresses["fleet"].rpartition(":")
        fleet = Fleet(host=host, port=int(port), rng=random.Random(1))
        ca = (self.identities / "ca.pem").read_text()
        for index in indexes:
            agent = ProtocolAgent(index, fleet, tls_context(self.identities, index, ca))
            self.connected.append(agent)
            agent.connect()
        await fleet_until(fleet, lambda: len(fleet.synced) == len(indexes))
        return fleet

    async def ask(self, controller: ControllerProcess, command: Callable[[Client], Any]) -> Any:
        """Give a command through that controller."""

        def call() -> Any:
            client = Client.from_config(controller.operator_file)
            try:
                return command(client)
            finally:
                client.close()

        return await asyncio.to_thread(call)

    async def start_rollout(self, controller: ControllerProcess) -> None:
        """The first wave holds for four seconds, so that it is met in its middle."""
        gate = rollout_pb2.GatePolicy(min_inferences=0)
        await self.ask(
            controller,
            lambda client: client.rollouts.start(
                "all", model="solar", version=2, waves=["1", "100%"], bake=timedelta(seconds=4), gate=gate
            ),
        )

    async def lease(self) -> Lease | None:
        async with self.store.read() as work:
            return await work.leases.find(LEASE_NAME)

    async def leads(self, controller: ControllerProcess) -> bool:
        lease = await self.lease()
        named = controller.folder / "served-by"
        return lease is not None and named.exists() and lease.holder == named.read_text()

    async def rollout(self) -> Rollout:
        async with self.store.read() as work:
            (rollout,) = await work.rollouts.list(deployment_id=None, before=None, limit=2)
        return rollout

    async def events(self) -> Sequence[AuditEvent]:
        """The log, oldest first."""
        async with self.store.read() as work:
            return await work.audit.list(AuditFilter(), after=None, limit=500, oldest_first=True)

    async def until(
        self, condition: Callable[[], Coroutine[Any, Any, Any]], *, what: str, seconds: float = WAIT_SECONDS
    ) -> None:
        """Look until the condition holds; fail with `what` when time is up."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not await condition():
            await self._pause()
            if asyncio.get_running_loop().time() < deadline:
                continue
            pytest.fail(f"waited {seconds:g} s for {what}\n{self.first.log()[-3000:]}\n{self.second.log()[-3000:]}")

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await asyncio.Event().wait()

    def close(self) -> None:
        for agent in self.connected:
            agent.drop()
        for controller in (self.first, self.second):
            controller.kill()


@pytest.fixture
async def replicas(tmp_path: Path, empty_postgres_url: str) -> AsyncIterator[Replicas]:
    store = open_store(empty_postgres_url)
    both = Replicas(tmp_path, empty_postgres_url, store)
    try:
        await both.start()
        yield both
    finally:
        both.close()
        await store.close()


async def fleet_until(fleet: Fleet, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            fleet.changed.clear()
            await fleet.changed.wait()


async def deploy(replicas: Replicas, controller: ControllerProcess) -> None:
    await replicas.ask(
        controller, lambda client: client.deployments.create("all", model="solar", version=1, selector="site=site-0")
    )


async def test_an_agent_of_the_other_replica_hears_of_a_change_at_once(replicas: Replicas) -> None:
    """Agents look by themselves every half minute: what comes sooner was told."""
    fleet = await replicas.connect(replicas.second, [0, 1])
    fleet.awaited = ("solar", "models/solar/versions/1")
    await deploy(replicas, replicas.first)
    async with asyncio.timeout(limits.DESIRED_AGE_SECONDS / 3):
        await fleet_until(fleet, lambda: len(fleet.told) == 2)

    lost = replicas.connected[0]
    await replicas.ask(replicas.first, lambda client: client.agents.revoke(bulk_enrolment.agent_id(0)))

    async def is_cut_off() -> bool:
        return lost.lost == 1

    await replicas.until(is_cut_off, what="the stream of the revoked agent to end", seconds=10.0)
    assert replicas.connected[1].lost == 0


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
async def test_a_leader_that_falls_silent_in_mid_wave_is_replaced_and_writes_nothing_more(
    replicas: Replicas, number: signal.Signals
) -> None:
    leader, follower = replicas.first, replicas.second
    await replicas.connect(follower, range(AGENTS))
    await deploy(replicas, follower)
    await replicas.start_rollout(follower)

    async def is_in_mid_wave() -> bool:
        first, second = (await replicas.rollout()).waves
        return bool(first.releases) and second.state is WaveState.PENDING

    await replicas.until(is_in_mid_wave, what="the first wave to be admitted")
    assert leader.process is not None
    leader.process.send_signal(number)

    await replicas.until(lambda: replicas.leads(follower), what="the other to lead", seconds=TAKE_OVER_SECONDS)

    async def has_succeeded() -> bool:
        return (await replicas.rollout()).state is RolloutState.SUCCEEDED

    await replicas.until(has_succeeded, what="the rollout to succeed")
    before, revision = await replicas.events(), (await replicas.rollout()).revision
    assert [event.happening.evidence["epoch"] for event in before if event.happening.action == "leadership.take"] == [
        1,
        2,
    ]
    if number is signal.SIGSTOP:
        await woken_leader_follows(replicas, leader)
    else:
        leader.kill()
        await asyncio.to_thread(leader.start)
    assert await replicas.leads(follower)
    assert await replicas.events() == before
    assert (await replicas.rollout()).revision == revision


async def woken_leader_follows(replicas: Replicas, leader: ControllerProcess) -> None:
    """Wake it, and see it notice; it goes on answering operators."""
    assert leader.process is not None
    leader.process.send_signal(signal.SIGCONT)

    async def has_noticed() -> bool:
        return observability.LEADERSHIP_LOST in leader.log()

    await replicas.until(has_noticed, what="the woken leader to notice")
    found = await replicas.ask(leader, lambda client: list(client.rollouts.list(limit=5)))
    assert [rollout.state for rollout in found] == [rollout_pb2.Rollout.STATE_SUCCEEDED]
