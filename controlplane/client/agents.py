"""The fleet."""

from collections.abc import Iterator

from lineside.v1 import agent_pb2, agent_service_pb2, agent_service_pb2_grpc

from controlplane.client.channel import Connection
from controlplane.client.names import agent_name
from controlplane.client.pages import iterate


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
