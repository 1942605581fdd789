"""Notices within the control process: whoever waits for a change is hurried.

A notice carries nothing: the waiter reads the state anew (level-triggered). Whoever watches first and
reads then cannot miss a change. Everything runs on one event loop. What is announced here may be relayed to other
controllers, and what they announced is heard here.
"""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from controlplane.domain.ids import AgentId, ModelId, RolloutId


class NoticeKind(StrEnum):
    DESIRED = "DESIRED"
    """Of agents whose desired state changed."""
    ROLLOUT = "ROLLOUT"
    REVOKED = "REVOKED"
    """Of agents."""
    DRIFT = "DRIFT"
    """Of models whose drifts began or ended."""
    ALL = "ALL"
    """Anything may have changed; without ids."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something changed."""

    kind: NoticeKind
    ids: tuple[str, ...] = ()


_WATCHED = MappingProxyType({NoticeKind.ROLLOUT: "rollout", NoticeKind.DRIFT: "drift"})
"""What the ids of a notice name, where it is no agent."""


class Changes:
    """Changes of one thing since the last `wait`; those before a wait are kept, any number as one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notice(self) -> None:
        self._event.set()

    async def wait(self, *, timeout_seconds: float | None = None) -> bool:
        """Return True after a change since the last wait, at once if there was one; False when time is up."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Notices:
    """The in-process ChangeNotifier. Holds one entry a watcher and none when nobody watches."""

    def __init__(self) -> None:
        self._watchers: dict[Hashable, set[Callable[[], None]]] = {}
        self._relay: Callable[[Notice], None] | None = None

    def relay_to(self, relay: Callable[[Notice], None]) -> None:
        """Pass on everything that is announced here; what is only heard is not passed on."""
        self._relay = relay

    def desired_changed(self, agent_ids: Iterable[AgentId]) -> None:
        self._announce(Notice(NoticeKind.DESIRED, tuple(agent_ids)))

    def agent_revoked(self, agent_id: AgentId) -> None:
        self._announce(Notice(NoticeKind.REVOKED, (agent_id,)))

    def rollout_changed(self, rollout_id: RolloutId) -> None:
        self._announce(Notice(NoticeKind.ROLLOUT, (rollout_id,)))

    def drift_changed(self, model_ids: Iterable[ModelId]) -> None:
        self._announce(Notice(NoticeKind.DRIFT, tuple(model_ids)))

    def hear(self, notice: Notice) -> None:
        """Hurry whoever waits for what another controller announced."""
        if notice.kind is NoticeKind.ALL:
            for watchers in self._watchers.values():
                for each in watchers:
                    each()
            return
        for name in notice.ids:
            self._notice((_WATCHED.get(notice.kind, "agent"), name))
        if notice.kind is NoticeKind.DRIFT:
            self._notice(("drift", None))

    @contextmanager
    def on_agent(self, agent_id: AgentId, notice: Callable[[], None]) -> Iterator[None]:
        """Call `notice`, which must not wait, at each change of the agent's desired state and at its revocation. Watch,
        then read, then wait, then read."""
        with self._watch(("agent", agent_id), notice):
            yield

    @contextmanager
    def watch_rollout(self, rollout_id: RolloutId) -> Iterator[Changes]:
        """Changes of the rollout. Watch, then read, then wait, then read."""
        changes = Changes()
        with self._watch(("rollout", rollout_id), changes.notice):
            yield changes

    @contextmanager
    def watch_drift(self, model_id: ModelId | None) -> Iterator[Changes]:
        """Changes of the model's drifts, or of every model's. Watch, then read, then wait, then read."""
        changes = Changes()
        with self._watch(("drift", model_id), changes.notice):
            yield changes

    def _announce(self, notice: Notice) -> None:
        self.hear(notice)
        if self._relay is not None:
            self._relay(notice)

    def _notice(self, key: Hashable) -> None:
        for notice in self._watchers.get(key, ()):
            notice()

    @contextmanager
    def _watch(self, key: Hashable, notice: Callable[[], None]) -> Iterator[None]:
        self._watchers.setdefault(key, set()).add(notice)
        try:
            yield
        finally:
            watchers = self._watchers[key]
            watchers.discard(notice)
            if not watchers:
                del self._watchers[key]
