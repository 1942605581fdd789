"""The fleet."""

from collections.abc import Iterator, Mapping, Sequence

from lineside.v1 import agent_pb2, agent_service_pb2, agent_service_pb2_grpc

from controlplane.client.channel import Connection
from controlplane.client.names import agent_name, model_name, version_name
from controlplane.client.pages import iterate
from controlplane.client.retry import Repeat


class Agents:
    """Calls of AgentService. Agents are named by id or resource name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = agent_service_pb2_grpc.AgentServiceStub(connection.api)

    def get(self, agent: str) -> agent_pb2.Agent:
        """Return an agent with its devices, slots and conditions."""
        return self._connection.call(self._stub.GetAgent, agent_service_pb2.GetAgentRequest(name=agent_name(agent)))

    def list(self, *, selector: str = "", limit: int | None = None) -> Iterator[agent_pb2.Agent]:
        """Yield agents by name, those that match `selector` when there is one."""

        def fetch(size: int, token: str) -> tuple[list[agent_pb2.Agent], str]:
            request = agent_service_pb2.ListAgentsRequest(page_size=size, page_token=token, selector=selector)
            page = self._connection.call(self._stub.ListAgents, request)
            return [*page.agents], page.next_page_token

        return iterate(fetch, limit=limit)

    def revoke(self, agent: str, *, etag: str = "") -> agent_pb2.Agent:
        """Refuse the agent's certificates for good."""
        request = agent_service_pb2.RevokeAgentRequest(name=agent_name(agent), etag=etag)
        return self._connection.call(self._stub.RevokeAgent, request)

    def pin(self, agent: str, *, model: str, version: int, reason: str) -> agent_pb2.Agent:
        """Hold a slot of the agent on a version; rollouts leave it out until it is unpinned."""
        request = agent_service_pb2.PinAgentRequest(
            name=agent_name(agent), model_version=version_name(model, version), reason=reason
        )
        return self._connection.call(self._stub.PinAgent, request, repeat=Repeat.LOST_RACE)

    def unpin(self, agent: str, *, model: str) -> agent_pb2.Agent:
        """End a pin; the slot follows its deployment again."""
        request = agent_service_pb2.UnpinAgentRequest(name=agent_name(agent), model=model_name(model))
        return self._connection.call(self._stub.UnpinAgent, request, repeat=Repeat.LOST_RACE)

    def update_labels(
        self, agent: str, *, set: Mapping[str, str] | None = None, remove: Sequence[str] = (), etag: str = ""
    ) -> agent_pb2.Agent:
        """Set and remove labels; the others stay. Deployments that match anew or no more follow at once."""
        request = agent_service_pb2.UpdateAgentLabelsRequest(
            name=agent_name(agent), set=dict(set or {}), remove=remove, etag=etag
        )
        return self._connection.call(
            self._stub.UpdateAgentLabels, request, repeat=Repeat.NEVER if etag else Repeat.LOST_RACE
        )

    def explain(self, agent: str, *, model: str = "") -> agent_service_pb2.AgentExplanation:
        """Say why each slot of the agent, or that of `model`, runs what it runs, and what would change it."""
        request = agent_service_pb2.ExplainAgentRequest(
            name=agent_name(agent), model=model_name(model) if model else ""
        )
        return self._connection.call(self._stub.ExplainAgent, request)
