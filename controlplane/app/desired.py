"""Desired states as agents are told them: read for many streams at once, with the versions' artifacts."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from controlplane import limits
from controlplane.app.ports import Store
from controlplane.domain.assignment import DesiredState
from controlplane.domain.catalog import ModelVersion
from controlplane.domain.ids import AgentId, ModelId

VersionKey = tuple[ModelId, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedState:
    """A desired state with every version that it names."""

    desired: DesiredState
    versions: Mapping[VersionKey, ModelVersion]


class DesiredStates:
    """Reads on behalf of all streams.

    A broadcast wakes every stream at once; those that ask while a read is under way share the next one, so
    that 10,000 streams cost a handful of queries. A read begins after its callers asked: what they were
    hurried for is in it.
    """

    def __init__(self, *, store: Store) -> None:
        self._store = store
        self._asked: dict[AgentId, asyncio.Future[DesiredState | None]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._versions: dict[VersionKey, ModelVersion] = {}

    async def find(self, agent_id: AgentId) -> DesiredState | None:
        """Return the agent's desired state as of now, None when it never had one."""
        future = self._asked.get(agent_id)
        if future is None:
            future = self._asked[agent_id] = asyncio.get_running_loop().create_future()
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        return await asyncio.shield(future)

    async def resolve(self, desired: DesiredState) -> ResolvedState:
        """Add the versions, those to prepare or to compare too. Their bytes are immutable, so each is read once."""
        wanted = {(slot.slot, number) for slot in desired.slots for number in slot.versions}
        missing = wanted - self._versions.keys()
        if missing:
            async with self._store.read() as work:
                found = await work.models.get_versions(sorted(missing))
            if len(self._versions) + len(found) > limits.VERSIONS_CACHED_MAX:
                self._versions = {key: self._versions[key] for key in wanted - missing}
            self._versions.update(found)
        return ResolvedState(desired=desired, versions={key: self._versions[key] for key in wanted})

    async def _read(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                found = await self._read_all(asked)
            except Exception as error:  # noqa: BLE001 - every caller gets it, none is left waiting
                for future in asked.values():
                    _answer(future, error)
            else:
                for agent_id, future in asked.items():
                    _answer(future, found.get(agent_id))

    async def _read_all(self, asked: Mapping[AgentId, object]) -> Mapping[AgentId, DesiredState]:
        async with self._store.read() as work:
            return await work.desired.list(asked)


def _answer(future: "asyncio.Future[DesiredState | None]", outcome: DesiredState | Exception | None) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
        # A caller that was cancelled meanwhile never looks; that is no error of its own.
        future.exception()
    else:
        future.set_result(outcome)
