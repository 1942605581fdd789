"""Links between agents and the controller: loss, delay, duplicates, partitions."""

import random

from controlplane.domain.ids import AgentId
from tests.simulation.events import Event, EventHeap
from tests.simulation.scenario import Faults


class Network:
    """Carries messages. What goes through one stream in one direction stays in order; a new stream knows nothing of
    what the old one still carries, and calls beside the streams (evidence) overtake each other as they like."""

    def __init__(self, heap: EventHeap, faults: Faults, rng: random.Random) -> None:
        self._heap = heap
        self._faults = faults
        self._rng = rng
        self._arrival: dict[tuple[AgentId, str], float] = {}
        self._cut: dict[AgentId, int] = {}
        self.calm = False
        """No message is lost or doubled any more."""

    def cut(self, agents: tuple[AgentId, ...], seconds: float) -> None:
        """Part these agents from the controller for a time. Cuts may overlap; streams break."""
        for agent_id in agents:
            self._cut[agent_id] = self._cut.get(agent_id, 0) + 1
            self.reconnect(agent_id)

        async def heal() -> None:
            for agent_id in agents:
                self._cut[agent_id] -= 1

        self._heap.after(seconds, heal)

    def is_cut(self, agent_id: AgentId) -> bool:
        return self._cut.get(agent_id, 0) > 0

    def reconnect(self, agent_id: AgentId) -> None:
        """The agent's stream is a new one: nothing holds its messages behind those of the old."""
        self._arrival = {key: at for key, at in self._arrival.items() if key[0] != agent_id}

    def stream(self, agent_id: AgentId, direction: str, arrive: Event) -> None:
        """Carry a message of the agent's stream."""
        self._carry(agent_id, arrive, key=(agent_id, direction))

    def call(self, agent_id: AgentId, arrive: Event) -> None:
        """Carry a message outside of the stream."""
        self._carry(agent_id, arrive, key=None)

    def _carry(self, agent_id: AgentId, arrive: Event, *, key: tuple[AgentId, str] | None) -> None:
        lost = self._rng.random() < self._faults.loss
        twice = self._rng.random() < self._faults.duplicates
        if self.is_cut(agent_id) or (lost and not self.calm):
            return
        self._heap.at(self._arrives(key), arrive)
        if twice and not self.calm:
            self._heap.at(self._arrives(key), arrive)

    def _arrives(self, key: tuple[AgentId, str] | None) -> float:
        arrival = self._heap.seconds + self._rng.uniform(0.01, self._faults.delay_seconds_max)
        if key is not None:
            arrival = max(self._arrival.get(key, 0.0), arrival)
            self._arrival[key] = arrival
        return arrival
