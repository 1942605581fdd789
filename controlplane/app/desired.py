"""Desired states as agents are told them: read for many streams at once, with the versions' artifacts."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from controlplane import limits
from controlplane.app.batching import SharedReads
from controlplane.app.ports import Store
from controlplane.domain.assignment import DesiredSlot, DesiredState
from controlplane.domain.catalog import ModelVersion
from controlplane.domain.ids import AgentId, ModelId

VersionKey = tuple[ModelId, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedState:
    """A desired state with every version that it names."""

    desired: DesiredState
    versions: Mapping[VersionKey, ModelVersion]


class DesiredStates:
    """Reads on behalf of all streams, which a broadcast wakes at once."""

    def __init__(self, *, store: Store) -> None:
        self._store = store
        self._reads = SharedReads(self._read_all)
        self._version_reads = SharedReads(self._read_versions)
        self._versions: dict[VersionKey, ModelVersion] = {}
        self._alike: dict[tuple[int, ...], tuple[tuple[DesiredSlot, ...], Mapping[VersionKey, ModelVersion]]] = {}
        """By the identity of slots, which are kept with it: most agents of a broadcast share them."""

    async def find(self, agent_id: AgentId) -> DesiredState | None:
        """Return the agent's desired state as of now, None when it never had one."""
        return await self._reads.find(agent_id)

    async def resolve(self, desired: DesiredState) -> ResolvedState:
        """Add the versions, those to prepare or to compare too. Their bytes are immutable, so each is read once."""
        key = tuple(map(id, desired.slots))
        if key not in self._alike:
            versions = await self._find_versions(desired)
            if len(self._alike) >= limits.VERSIONS_CACHED_MAX:
                self._alike.clear()
            self._alike[key] = (desired.slots, versions)
        return ResolvedState(desired=desired, versions=self._alike[key][1])

    async def _find_versions(self, desired: DesiredState) -> Mapping[VersionKey, ModelVersion]:
        wanted = {(slot.slot, number) for slot in desired.slots for number in slot.versions}
        known = {key: self._versions[key] for key in wanted if key in self._versions}
        for key in sorted(wanted - known.keys()):
            version = await self._version_reads.find(key)
            assert version is not None, "versions are never deleted"
            known[key] = version
        if len(self._versions) + len(known) > limits.VERSIONS_CACHED_MAX:
            self._versions.clear()
        self._versions.update(known)
        return known

    async def _read_versions(self, keys: Collection[VersionKey]) -> Mapping[VersionKey, ModelVersion]:
        async with self._store.read() as work:
            return await work.models.get_versions(sorted(keys))

    async def _read_all(self, asked: Collection[AgentId]) -> Mapping[AgentId, DesiredState]:
        async with self._store.read() as work:
            return await work.desired.list(asked)
