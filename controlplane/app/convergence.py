"""Convergence: the desired state of every agent, materialised from deployments, pins and active rollouts.

Level-triggered: every run recomputes everything and writes only what differs, so a run too many changes
nothing and a run that was lost is made good by the next.
"""

from collections.abc import Sequence

from controlplane.app.ports import ChangeNotifier, Store, UnitOfWork
from controlplane.app.retries import retry_stale
from controlplane.domain.assignment import DesiredState, Standing, assign, revise
from controlplane.domain.ids import AgentId


async def read_standing(uow: UnitOfWork) -> Standing:
    """Read everything that decides who should run what."""
    return Standing(
        agents=await uow.agents.list_all(),
        deployments=await uow.deployments.list_all(),
        rollouts=await uow.rollouts.list_active(),
        stored=await uow.desired.list_all(),
    )


async def converge(uow: UnitOfWork) -> tuple[AgentId, ...]:
    """Save the desired states that changed, within the caller's write transaction; return their agents.

    The caller passes them to `ChangeNotifier.desired_changed` once the transaction has committed.
    """
    changed = await find_changes(uow)
    if changed:
        await uow.desired.save(changed)
    return tuple(state.agent_id for state in changed)


async def find_changes(uow: UnitOfWork) -> Sequence[DesiredState]:
    """Return the desired states that differ from the stored ones, each with its next generation."""
    standing = await read_standing(uow)
    return revise(assign(standing), standing.stored)


class Convergence:
    """Brings every agent's desired state up to date."""

    def __init__(self, *, store: Store, notifier: ChangeNotifier) -> None:
        self._store = store
        self._notifier = notifier

    async def run(self) -> tuple[AgentId, ...]:
        """Recompute all desired states; return the agents whose state changed, sorted.

        Reads first, and opens the one write transaction only when there is something to write.
        """
        async with self._store.read() as uow:
            if not await find_changes(uow):
                return ()
        changed = await retry_stale(self._write)
        self._notifier.desired_changed(changed)
        return changed

    async def _write(self) -> tuple[AgentId, ...]:
        async with self._store.write() as uow:
            return await converge(uow)
