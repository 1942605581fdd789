"""Decoded rows of the fleet, each kept with the version that its row has in the database.

To decode ten thousand agents takes seconds, and every decision over the fleet reads them all. So a repository asks for
the versions, which costs milliseconds, and decodes the rows whose version it does not know. An entry counts only where
its version is the one that the asking transaction itself has just read, so that a cached read equals a full one.

Only what is committed is kept: what a writer has read or written becomes known to others after its commit. A reader
whose snapshot is a moment older finds the value before it: else each commit that changes a fleet would make the readers
of that moment decode all of it.
"""

from collections.abc import Collection, Hashable, Mapping
from typing import Generic, TypeVar

from controlplane.domain.assignment import DesiredState
from controlplane.domain.ids import AgentId, RolloutId
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.rollout import Rollout
from controlplane.store.mapping.inventory import SlotTexts

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class RowCache(Generic[K, V]):
    """The last two values of each key, each with its version. Equal versions mean equal rows."""

    def __init__(self, committed: "RowCache[K, V] | None" = None) -> None:
        """With `committed` it is a writer's: it looks there too, and keeps what is new to itself until `publish`."""
        self._committed = committed
        self._entries: dict[K, tuple[Hashable, V]] = {}
        self._before: dict[K, tuple[Hashable, V]] = {}

    def find(self, key: K) -> tuple[Hashable, V] | None:
        """Return the value last kept, with its version, whichever that is."""
        entry = self._entries.get(key)
        if entry is None and self._committed is not None:
            return self._committed.find(key)
        return entry

    def find_at(self, key: K, version: Hashable) -> V | None:
        """Return the value of this version, None where it is not one of the last two."""
        for entries in (self._entries, self._before):
            entry = entries.get(key)
            if entry is not None and entry[0] == version:
                return entry[1]
        return None if self._committed is None else self._committed.find_at(key, version)

    def keep(self, key: K, version: Hashable, value: V) -> None:
        """Take the value; of those before only the last stays."""
        last = self._entries.get(key)
        if last is not None and last[0] != version:
            self._before[key] = last
        self._entries[key] = (version, value)

    def retain(self, keys: Collection[K] | Mapping[K, object]) -> None:
        """Forget others where there are any: these are all that exist."""
        if len(self._entries) > len(keys):
            known = {key: None for key in keys if key in self._entries}
            self._entries = {key: self._entries[key] for key in known}
            self._before = {key: self._before[key] for key in known if key in self._before}

    def publish(self) -> None:
        """Make known what a writer has kept; its transaction is committed."""
        assert self._committed is not None, "a reader keeps where everybody looks"
        for key, (version, value) in self._entries.items():
            self._committed.keep(key, version, value)

    def clear(self) -> None:
        self._entries.clear()
        self._before.clear()


class FleetCache:
    """The caches of one store."""

    def __init__(self, committed: "FleetCache | None" = None) -> None:
        self.records: RowCache[AgentId, AgentRecord] = RowCache(committed.records if committed else None)
        self.desired: RowCache[AgentId, DesiredState] = RowCache(committed.desired if committed else None)
        self.active: RowCache[RolloutId, Rollout] = RowCache(committed.active if committed else None)
        """Rollouts that are active: each names every agent of its waves."""
        self.slot_texts: SlotTexts = committed.slot_texts if committed else SlotTexts()
        """The same for everybody: what a text says does not depend on what is stored."""

    def for_writer(self) -> "FleetCache":
        """A view for one write transaction; `publish` it after the commit."""
        return FleetCache(self)

    def publish(self) -> None:
        self.records.publish()
        self.desired.publish()
        self.active.publish()

    def clear(self) -> None:
        """Forget everything: it is not known to be the same database any more."""
        self.records.clear()
        self.desired.clear()
        self.active.clear()
