"""What follows from an agent's labels, host and devices alone, found once as long as these are the same objects.

Whoever reads a fleet again gets the objects of before for what has not changed; so what every decision asks of each of
ten thousand agents is found when one enrols, is labelled or tells other devices, and hardly ever else.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import Agent, AgentRecord, Device, Host

T = TypeVar("T")

AGENTS_MAX = 32_768
"""Agents that are remembered: three times the largest fleet of one controller, at some 100 bytes each."""


class AgentMemo(Generic[T]):
    """A function of an agent that looks at nothing of its record but the agent itself, its host and its devices."""

    def __init__(self, find: Callable[[AgentRecord], T]) -> None:
        self._find = find
        self._known: dict[AgentId, tuple[Agent, Host | None, tuple[Device, ...] | None, T]] = {}

    def __call__(self, record: AgentRecord) -> T:
        """Return what the function returns; the same object as before where it looks at the same objects."""
        agent, observation = record.agent, record.observation
        host, devices = (observation.host, observation.devices) if observation is not None else (None, None)
        known = self._known.get(agent.id)
        if known is not None and known[0] is agent and known[1] is host and known[2] is devices:
            return known[3]
        if len(self._known) >= AGENTS_MAX:
            self._known.clear()
        found = self._find(record)
        self._known[agent.id] = (agent, host, devices, found)
        return found
