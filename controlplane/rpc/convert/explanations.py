"""Explanations on the wire."""

from collections.abc import Iterable

from lineside.v1 import agent_service_pb2

from controlplane.domain.explanation import Explanation, SlotExplanation
from controlplane.domain.ids import AgentId, ModelId
from controlplane.rpc.convert.names import version_name


def explanation_to_proto(agent_id: AgentId, slots: Iterable[SlotExplanation]) -> agent_service_pb2.AgentExplanation:
    """Return why the agent runs what it runs."""
    return agent_service_pb2.AgentExplanation(agent=f"agents/{agent_id}", slots=map(_slot_to_proto, slots))


def _slot_to_proto(slot: SlotExplanation) -> agent_service_pb2.SlotExplanation:
    return agent_service_pb2.SlotExplanation(
        slot=slot.slot,
        desired_version=_version(slot.slot, slot.desired_version),
        serving_version=_version(slot.slot, slot.serving_version),
        deployment=f"deployments/{slot.deployment_id}" if slot.deployment_id is not None else "",
        rollout=f"rollouts/{slot.rollout_id}" if slot.rollout_id is not None else "",
        because=map(_fact_to_proto, slot.because),
        would_change=map(_fact_to_proto, slot.would_change),
    )


def _fact_to_proto(fact: Explanation) -> agent_service_pb2.Explanation:
    return agent_service_pb2.Explanation(reason=fact.reason, message=fact.message)


def _version(model_id: ModelId, number: int | None) -> str:
    return version_name(model_id, number) if number else ""
