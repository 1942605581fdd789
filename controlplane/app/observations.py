"""Observations on their way to the store: the latest of each agent, many in one write.

A fleet reports far more often than a database likes to commit, and each report replaces the one before. So
reports wait, the newer replacing the older, until OBSERVATION_FLUSH_SECONDS have passed or
OBSERVATION_ROWS_MAX agents wait; what somebody waits for (a slot that changed) goes at once where that time has passed
since the last write: of a fleet that reconnects every report is such a one. A crash loses the waiting reports and
nothing else: every agent sends its whole state again.

Selectors may ask for facts of a box (its devices), so a write that brings new facts is followed by a
convergence of those agents: an agent's first report may be what makes a deployment hold it. Convergence runs beside
the writes and takes no more than half of the time: a fleet that connects brings new facts with every write.
"""

import asyncio
from dataclasses import replace

import structlog

from controlplane import limits, observability
from controlplane.app.convergence import Convergence
from controlplane.app.ports import Store
from controlplane.app.retries import retry_stale
from controlplane.domain.errors import StaleWriteError, StorageError
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import Observation

log = structlog.get_logger(__name__)


class Observations:
    """The one writer of observations. `run` is its loop; `put` never waits."""

    def __init__(self, *, store: Store, convergence: Convergence) -> None:
        self._store = store
        self._convergence = convergence
        self._facts: dict[AgentId, frozenset[str]] = {}
        self._changed: set[AgentId] = set()
        """Agents with new facts that nobody has acted upon."""
        self._facts_changed = asyncio.Event()
        self._waiting: dict[AgentId, Observation] = {}
        self._any = asyncio.Event()
        self._urgent = asyncio.Event()
        self._full = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Agents whose latest report is not written yet."""
        return len(self._waiting)

    def put(self, observation: Observation, *, urgent: bool) -> None:
        """Take the latest of an agent. Host and devices of one that still waits are kept."""
        waiting = self._waiting.get(observation.agent_id)
        self._waiting[observation.agent_id] = observation if waiting is None else _merge(waiting, observation)
        self._any.set()
        if urgent:
            self._urgent.set()
        if len(self._waiting) >= limits.OBSERVATION_ROWS_MAX:
            self._urgent.set()
            self._full.set()

    async def run(self) -> None:
        """Write what waits, for ever. On cancellation what waits then is written first."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write_for_ever())
                tasks.create_task(self._converge_for_ever())
        finally:
            await self._write_or_keep()

    async def flush(self) -> None:
        """Write everything that waits, then converge if facts are new. Raises StorageError or StaleWriteError, and
        keeps for the next time what could not be done."""
        await self._write_waiting()
        if self._facts_changed.is_set():
            await self._converge()

    async def _write_for_ever(self) -> None:
        while True:
            await self._any.wait()
            await _wait(self._urgent, limits.OBSERVATION_FLUSH_SECONDS)
            if not await self._write_or_keep():
                await asyncio.sleep(limits.OBSERVATION_RETRY_SECONDS)
            await _wait(self._full, limits.OBSERVATION_FLUSH_SECONDS)

    async def _write_waiting(self) -> None:
        while self._waiting:
            batch = dict(list(self._waiting.items())[: limits.OBSERVATION_ROWS_MAX])
            for agent_id in batch:
                del self._waiting[agent_id]
            try:
                await retry_stale(lambda batch=batch: self._write(tuple(batch.values())))  # type: ignore[misc]
            except BaseException:
                self._put_back(batch)
                raise
            self._look_at_facts(batch)
        self._any.clear()

    async def _converge_for_ever(self) -> None:
        """Converge after new facts have been written: at once after a quiet time, else when as much time has passed as
        the last run took."""
        loop = asyncio.get_running_loop()
        while True:
            await self._facts_changed.wait()
            begin = loop.time()
            try:
                await self._converge()
            except (StorageError, StaleWriteError) as error:
                log.warning(observability.CONVERGENCE_PUT_OFF, reason=error.reason, cause=str(error))
                await asyncio.sleep(limits.OBSERVATION_RETRY_SECONDS)
            await asyncio.sleep(loop.time() - begin)

    async def _converge(self) -> None:
        # Before the run: facts that are written during it are for the next.
        changed, self._changed = self._changed, set()
        self._facts_changed.clear()
        try:
            await self._convergence.run(changed)
        except BaseException:
            self._changed |= changed
            self._facts_changed.set()
            raise

    async def _write_or_keep(self) -> bool:
        try:
            await self._write_waiting()
        except (StorageError, StaleWriteError) as error:
            # The agents go on serving and report again; the store may be back by then.
            log.warning(
                observability.OBSERVATIONS_KEPT, count=len(self._waiting), reason=error.reason, cause=str(error)
            )
            return False
        return True

    async def _write(self, batch: tuple[Observation, ...]) -> None:
        async with self._store.write() as work:
            await work.agents.record(batch)

    def _look_at_facts(self, batch: dict[AgentId, Observation]) -> None:
        for agent_id, observation in batch.items():
            if observation.host is None and observation.devices is None:
                continue
            facts = _facts(observation)
            if self._facts.get(agent_id) != facts:
                self._facts[agent_id] = facts
                self._changed.add(agent_id)
                self._facts_changed.set()

    def _put_back(self, batch: dict[AgentId, Observation]) -> None:
        for agent_id, observation in batch.items():
            newer = self._waiting.get(agent_id)
            self._waiting[agent_id] = observation if newer is None else _merge(observation, newer)
        self._any.set()


async def _wait(event: asyncio.Event, seconds_max: float) -> None:
    """Wait for the event for so long, and clear it."""
    try:
        async with asyncio.timeout(seconds_max):
            await event.wait()
    except TimeoutError:
        pass
    event.clear()


def _merge(older: Observation, newer: Observation) -> Observation:
    return replace(
        newer,
        host=newer.host if newer.host is not None else older.host,
        devices=newer.devices if newer.devices is not None else older.devices,
    )


def _facts(observation: Observation) -> frozenset[str]:
    """What a selector may see of an observation; equal where it sees no difference."""
    return frozenset({observation.host.os if observation.host else "", *(d.device for d in observation.devices or ())})
