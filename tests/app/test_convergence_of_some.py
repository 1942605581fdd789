"""Convergence of some agents gives them what convergence of all would, and touches no other."""

from controlplane.app.convergence import Convergence
from controlplane.app.notices import Notices
from controlplane.domain.ids import AgentId
from tests.support.factories import WELD, make_agent, make_deployment
from tests.support.memory_store import MemoryStore

AGENTS = tuple(AgentId(f"st-{number}") for number in range(1, 7))


async def fleet() -> tuple[MemoryStore, Convergence]:
    """Agents of two lines, and two deployments that meet on one of them."""
    store = MemoryStore()
    async with store.write() as work:
        for number, agent_id in enumerate(AGENTS):
            labels = {"line": str(number % 2)}
            await work.agents.add(make_agent(id=agent_id, uid=f"uid-{agent_id}", labels=labels))
        await work.deployments.add(make_deployment(selector="line", version=1))
        await work.deployments.add(
            make_deployment(id="weld", uid="uid-weld", model_id=WELD, selector="line=1", version=2)
        )
    return store, Convergence(store=store, notifier=Notices())


async def test_each_part_of_the_fleet_gets_what_it_gets_with_all_others() -> None:
    whole, converge_whole = await fleet()
    await converge_whole.run()
    parts, converge_part = await fleet()
    assert await converge_part.run(AGENTS[:2]) == AGENTS[:2]
    async with parts.read() as work:
        assert set(await work.desired.list_all()) == set(AGENTS[:2])
    assert await converge_part.run([AGENTS[1], AGENTS[4], AgentId("nobody")]) == (AGENTS[4],)
    assert await converge_part.run() == (AGENTS[2], AGENTS[3], AGENTS[5])
    async with whole.read() as one, parts.read() as other:
        assert await one.desired.list_all() == await other.desired.list_all()
