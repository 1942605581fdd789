"""AgentService."""

from lineside.v1 import agent_pb2, agent_service_pb2, agent_service_pb2_grpc

from controlplane.app.agents import Agents
from controlplane.app.ports import Clock
from controlplane.domain.inventory import AgentRecord
from controlplane.rpc.authentication import Context, current_actor
from controlplane.rpc.convert.agents import agent_to_proto
from controlplane.rpc.convert.etags import parse_etag
from controlplane.rpc.convert.names import parse_agent_name


class AgentServicer(agent_service_pb2_grpc.AgentServiceServicer):
    """The fleet, for operators."""

    def __init__(self, agents: Agents, *, clock: Clock, silent_seconds_max: float) -> None:
        self._agents = agents
        self._clock = clock
        self._silent_seconds_max = silent_seconds_max

    async def GetAgent(self, request: agent_service_pb2.GetAgentRequest, context: Context) -> agent_pb2.Agent:
        return self._to_proto(await self._agents.get(parse_agent_name(request.name, field="name")))

    async def ListAgents(
        self, request: agent_service_pb2.ListAgentsRequest, context: Context
    ) -> agent_service_pb2.ListAgentsResponse:
        page = await self._agents.list(
            page_size=request.page_size, page_token=request.page_token, selector=request.selector
        )
        return agent_service_pb2.ListAgentsResponse(
            agents=map(self._to_proto, page.items), next_page_token=page.next_token
        )

    async def RevokeAgent(self, request: agent_service_pb2.RevokeAgentRequest, context: Context) -> agent_pb2.Agent:
        agent_id = parse_agent_name(request.name, field="name")
        return self._to_proto(
            await self._agents.revoke(agent_id, actor=current_actor(), revision=parse_etag(request.etag))
        )

    def _to_proto(self, record: AgentRecord) -> agent_pb2.Agent:
        return agent_to_proto(record, now=self._clock.now(), silent_seconds_max=self._silent_seconds_max)
