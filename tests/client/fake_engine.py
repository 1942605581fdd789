"""The part of the controller in memory that moves versions: agents, rollouts, the log of decisions, operators."""

# ruff: noqa: N802 (methods of servicers are named as the contract names them)

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from lineside.v1 import (
    agent_pb2,
    agent_service_pb2,
    agent_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    operator_pb2,
    operator_service_pb2,
    operator_service_pb2_grpc,
    rollout_pb2,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
)

from tests.client.fake_answers import Refusal, find, page

if TYPE_CHECKING:
    from tests.client.fake_controller import FakeController

T = TypeVar("T")


def _play(answers: Iterable[T | Refusal], context: grpc.ServicerContext) -> Iterator[T]:
    """Yield what was scripted."""
    for answer in answers:
        if isinstance(answer, Refusal):
            answer.abort(context)
        yield answer


class Agents(agent_service_pb2_grpc.AgentServiceServicer):
    """Keeps labels and pins, and explains as it was told."""

    def __init__(self, fake: "FakeController", server: grpc.Server) -> None:
        self._fake = fake
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(self, server)

    def GetAgent(self, request: Any, context: Any) -> agent_pb2.Agent:
        agent: agent_pb2.Agent = find(self._fake.agents, request.name, context)
        return agent

    def ListAgents(self, request: Any, context: Any) -> agent_service_pb2.ListAgentsResponse:
        agents, token = page(list(self._fake.agents.values()), request)
        return agent_service_pb2.ListAgentsResponse(agents=agents, next_page_token=token)

    def RevokeAgent(self, request: Any, context: Any) -> agent_pb2.Agent:
        agent: agent_pb2.Agent = find(self._fake.agents, request.name, context)
        agent.state = agent_pb2.Agent.STATE_REVOKED
        return agent

    def PinAgent(self, request: Any, context: Any) -> agent_pb2.Agent:
        agent = self.GetAgent(request, context)
        pin = agent_pb2.Pin(model_version=request.model_version, reason=request.reason, creator="operators/anna")
        pin.create_time.GetCurrentTime()
        agent.pins.append(pin)
        return agent

    def UnpinAgent(self, request: Any, context: Any) -> agent_pb2.Agent:
        agent = self.GetAgent(request, context)
        kept = [pin for pin in agent.pins if not pin.model_version.startswith(f"{request.model}/")]
        del agent.pins[:]
        agent.pins.extend(kept)
        return agent

    def UpdateAgentLabels(self, request: Any, context: Any) -> agent_pb2.Agent:
        agent = self.GetAgent(request, context)
        agent.labels.update(request.set)
        for key in request.remove:
            agent.labels.pop(key, None)
        return agent

    def ExplainAgent(self, request: Any, context: Any) -> agent_service_pb2.AgentExplanation:
        explanation: agent_service_pb2.AgentExplanation = find(self._fake.explanations, request.name, context)
        return explanation


class Rollouts(rollout_service_pb2_grpc.RolloutServiceServicer):
    """Keeps rollouts and moves them as it is told; streams are scripted."""

    def __init__(self, fake: "FakeController", server: grpc.Server) -> None:
        self._fake = fake
        rollout_service_pb2_grpc.add_RolloutServiceServicer_to_server(self, server)

    def CreateRollout(self, request: Any, context: Any) -> rollout_pb2.Rollout:
        rollout = rollout_pb2.Rollout(name=f"rollouts/r{len(self._fake.rollouts) + 1}")
        rollout.MergeFrom(request.rollout)
        rollout.state = rollout_pb2.Rollout.STATE_RUNNING
        self._fake.rollouts[rollout.name] = rollout
        return rollout

    def GetRollout(self, request: Any, context: Any) -> rollout_pb2.Rollout:
        rollout: rollout_pb2.Rollout = find(self._fake.rollouts, request.name, context)
        return rollout

    def ListRollouts(self, request: Any, context: Any) -> rollout_service_pb2.ListRolloutsResponse:
        found = [one for one in self._fake.rollouts.values() if request.deployment in {"", one.deployment}]
        rollouts, token = page(found, request)
        return rollout_service_pb2.ListRolloutsResponse(rollouts=rollouts, next_page_token=token)

    def WatchRollout(self, request: Any, context: Any) -> Iterator[rollout_service_pb2.WatchRolloutResponse]:
        for answer in self._fake.watches.popleft():
            if isinstance(answer, Refusal):
                answer.abort(context)
            if isinstance(answer, rollout_pb2.Rollout):
                yield rollout_service_pb2.WatchRolloutResponse(rollout=answer)
            else:
                yield answer

    def PlanRollout(self, request: Any, context: Any) -> Iterator[rollout_service_pb2.PlanRolloutResponse]:
        return _play(self._fake.plans.popleft(), context)

    def RehearseRollout(self, request: Any, context: Any) -> Iterator[rollout_service_pb2.RehearseRolloutResponse]:
        return _play(self._fake.rehearsals.popleft(), context)

    def PauseRollout(self, request: Any, context: Any) -> rollout_pb2.Rollout:
        return self._move(request, context, rollout_pb2.Rollout.STATE_PAUSED)

    def ResumeRollout(self, request: Any, context: Any) -> rollout_pb2.Rollout:
        return self._move(request, context, rollout_pb2.Rollout.STATE_RUNNING)

    def AbortRollout(self, request: Any, context: Any) -> rollout_pb2.Rollout:
        return self._move(request, context, rollout_pb2.Rollout.STATE_ABORTED)

    def ApproveRollout(self, request: Any, context: Any) -> rollout_pb2.Rollout:
        rollout: rollout_pb2.Rollout = find(self._fake.rollouts, request.name, context)
        wave = next(wave for wave in rollout.waves if wave.state == rollout_pb2.Wave.STATE_PENDING)
        if request.HasField("wave") and request.wave != wave.index:
            Refusal(
                code=grpc.StatusCode.FAILED_PRECONDITION,
                message="another wave is next",
                reason="APPROVAL_NOT_DUE",
                field="wave",
                remedy="look at the rollout",
            ).abort(context)
        wave.approver = "operators/anna"
        return rollout

    def RollbackRollout(self, request: Any, context: Any) -> rollout_pb2.Rollout:
        return self._move(request, context, rollout_pb2.Rollout.STATE_ROLLING_BACK)

    def RetryRollout(self, request: Any, context: Any) -> rollout_pb2.Rollout:
        return self._move(request, context, rollout_pb2.Rollout.STATE_RUNNING)

    def _move(self, request: Any, context: Any, state: rollout_pb2.Rollout.State.ValueType) -> rollout_pb2.Rollout:
        rollout: rollout_pb2.Rollout = find(self._fake.rollouts, request.name, context)
        rollout.state = state
        return rollout


class Audit(audit_service_pb2_grpc.AuditServiceServicer):
    """Lists the events that it was given; of the filters it knows the actor's."""

    def __init__(self, fake: "FakeController", server: grpc.Server) -> None:
        self._fake = fake
        audit_service_pb2_grpc.add_AuditServiceServicer_to_server(self, server)

    def ListAuditEvents(self, request: Any, context: Any) -> audit_service_pb2.ListAuditEventsResponse:
        found = [event for event in self._fake.events if request.actor in {"", event.actor}]
        events, token = page(found if request.oldest_first else found[::-1], request)
        return audit_service_pb2.ListAuditEventsResponse(audit_events=events, next_page_token=token)


class Operators(operator_service_pb2_grpc.OperatorServiceServicer):
    """Keeps operators; who calls is anna."""

    def __init__(self, fake: "FakeController", server: grpc.Server) -> None:
        self._fake = fake
        operator_service_pb2_grpc.add_OperatorServiceServicer_to_server(self, server)

    def CreateOperator(self, request: Any, context: Any) -> operator_pb2.Operator:
        operator = operator_pb2.Operator(
            name=f"operators/{request.operator_id}", description=request.operator.description
        )
        operator.create_time.GetCurrentTime()
        self._fake.operators[operator.name] = operator
        shown = operator_pb2.Operator(token="lso1.c2VjcmV0")
        shown.MergeFrom(operator)
        return shown

    def ListOperators(self, request: Any, context: Any) -> operator_service_pb2.ListOperatorsResponse:
        operators, token = page(list(self._fake.operators.values()), request)
        return operator_service_pb2.ListOperatorsResponse(operators=operators, next_page_token=token)

    def RevokeOperator(self, request: Any, context: Any) -> operator_pb2.Operator:
        operator: operator_pb2.Operator = find(self._fake.operators, request.name, context)
        operator.revoked = True
        return operator

    def GetCurrentOperator(self, request: Any, context: Any) -> operator_pb2.Operator:
        return operator_pb2.Operator(name="operators/anna")
