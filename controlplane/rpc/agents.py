"""AgentService."""

from collections import defaultdict

from lineside.v1 import agent_pb2, agent_service_pb2, agent_service_pb2_grpc

from controlplane.app.agents import Agents
from controlplane.app.drift import Drifts
from controlplane.app.explanations import Explanations
from controlplane.app.pins import Pins
from controlplane.app.ports import Clock
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.pin import Pin
from controlplane.rpc.authentication import Context, current_actor
from controlplane.rpc.convert.agents import agent_to_proto
from controlplane.rpc.convert.etags import parse_etag
from controlplane.rpc.convert.explanations import explanation_to_proto
from controlplane.rpc.convert.names import parse_agent_name, parse_model_name, parse_version_name


class AgentServicer(agent_service_pb2_grpc.AgentServiceServicer):
    """The fleet, for operators."""

    def __init__(
        self,
        agents: Agents,
        pins: Pins,
        explanations: Explanations,
        drifts: Drifts,
        *,
        clock: Clock,
        silent_seconds_max: float,
    ) -> None:
        self._agents = agents
        self._pins = pins
        self._explanations = explanations
        self._drifts = drifts
        self._clock = clock
        self._silent_seconds_max = silent_seconds_max

    async def GetAgent(self, request: agent_service_pb2.GetAgentRequest, context: Context) -> agent_pb2.Agent:
        return await self._to_proto(await self._agents.get(parse_agent_name(request.name, field="name")))

    async def ListAgents(
        self, request: agent_service_pb2.ListAgentsRequest, context: Context
    ) -> agent_service_pb2.ListAgentsResponse:
        page = await self._agents.list(
            page_size=request.page_size, page_token=request.page_token, selector=request.selector
        )
        pins: defaultdict[AgentId, list[Pin]] = defaultdict(list)
        for pin in await self._pins.list(record.agent.id for record in page.items):
            pins[pin.agent_id].append(pin)
        drifts = await self._drifts.of_agents(record.agent.id for record in page.items)
        now = self._clock.now()
        return agent_service_pb2.ListAgentsResponse(
            agents=(
                agent_to_proto(
                    record,
                    now=now,
                    silent_seconds_max=self._silent_seconds_max,
                    pins=pins[record.agent.id],
                    drifts=drifts.get(record.agent.id, ()),
                )
                for record in page.items
            ),
            next_page_token=page.next_token,
        )

    async def RevokeAgent(self, request: agent_service_pb2.RevokeAgentRequest, context: Context) -> agent_pb2.Agent:
        agent_id = parse_agent_name(request.name, field="name")
        revision = parse_etag(request.etag)
        return await self._to_proto(await self._agents.revoke(agent_id, actor=current_actor(), revision=revision))

    async def PinAgent(self, request: agent_service_pb2.PinAgentRequest, context: Context) -> agent_pb2.Agent:
        model_id, number = parse_version_name(request.model_version, field="model_version")
        agent_id = parse_agent_name(request.name, field="name")
        return await self._to_proto(
            await self._pins.pin(agent_id, model_id, number, reason=request.reason, actor=current_actor())
        )

    async def UnpinAgent(self, request: agent_service_pb2.UnpinAgentRequest, context: Context) -> agent_pb2.Agent:
        agent_id = parse_agent_name(request.name, field="name")
        model_id = parse_model_name(request.model, field="model")
        return await self._to_proto(await self._pins.unpin(agent_id, model_id, actor=current_actor()))

    async def UpdateAgentLabels(
        self, request: agent_service_pb2.UpdateAgentLabelsRequest, context: Context
    ) -> agent_pb2.Agent:
        record = await self._agents.update_labels(
            parse_agent_name(request.name, field="name"),
            set_labels=dict(request.set),
            remove=tuple(request.remove),
            actor=current_actor(),
            revision=parse_etag(request.etag),
        )
        return await self._to_proto(record)

    async def ExplainAgent(
        self, request: agent_service_pb2.ExplainAgentRequest, context: Context
    ) -> agent_service_pb2.AgentExplanation:
        agent_id = parse_agent_name(request.name, field="name")
        model_id = parse_model_name(request.model, field="model") if request.model else None
        return explanation_to_proto(agent_id, await self._explanations.explain(agent_id, model_id))

    async def _to_proto(self, record: AgentRecord) -> agent_pb2.Agent:
        return agent_to_proto(
            record,
            now=self._clock.now(),
            silent_seconds_max=self._silent_seconds_max,
            pins=await self._pins.list([record.agent.id]),
            drifts=(await self._drifts.of_agents([record.agent.id])).get(record.agent.id, ()),
        )
