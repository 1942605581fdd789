"""Desired states: one row an agent, and one a slot."""

from collections.abc import Iterable
from typing import Any

from controlplane.domain.assignment import DesiredSlot, DesiredState, ShadowRun
from controlplane.domain.ids import AgentId, DeploymentId, ModelId
from controlplane.store.mapping.deployment import (
    runtime_policy_from_json,
    runtime_policy_to_json,
)
from controlplane.store.mapping.result_policy import result_policy_from_json, result_policy_to_json
from controlplane.store.mapping.sample_policy import sample_policy_from_json, sample_policy_to_json
from controlplane.store.mapping.values import Row, float_from_json, float_to_json


def desired_to_row(desired: DesiredState) -> dict[str, Any]:
    return {"agent_id": desired.agent_id, "generation": desired.generation}


def desired_to_slot_rows(desired: DesiredState) -> list[dict[str, Any]]:
    return [
        {
            "agent_id": desired.agent_id,
            "model_id": slot.slot,
            "version": slot.version,
            "deployment_id": slot.deployment_id,
            "runtime_policy": runtime_policy_to_json(slot.runtime_policy),
            "sample_policy": sample_policy_to_json(slot.sample_policy),
            "result_policy": result_policy_to_json(slot.result_policy),
            "offer": slot.offer,
            "prefetch_version": slot.prefetch_version,
            "shadow": None if slot.shadow is None else _shadow_to_json(slot.shadow),
            "fetch_bytes_per_second_max": slot.fetch_bytes_per_second_max,
        }
        for slot in desired.slots
    ]


def desired_from_rows(row: Row, slot_rows: Iterable[Row]) -> DesiredState:
    """`slot_rows` are those of the same agent, sorted by slot."""
    return DesiredState(
        agent_id=AgentId(row["agent_id"]),
        generation=row["generation"],
        slots=tuple(slot_from_row(slot_row) for slot_row in slot_rows),
    )


def slot_from_row(row: Row) -> DesiredSlot:
    return DesiredSlot(
        slot=ModelId(row["model_id"]),
        version=row["version"],
        deployment_id=DeploymentId(row["deployment_id"]),
        runtime_policy=runtime_policy_from_json(row["runtime_policy"]),
        sample_policy=sample_policy_from_json(row["sample_policy"]),
        result_policy=result_policy_from_json(row["result_policy"]),
        offer=row["offer"],
        prefetch_version=row["prefetch_version"],
        shadow=None if row["shadow"] is None else _shadow_from_json(row["shadow"]),
        fetch_bytes_per_second_max=row["fetch_bytes_per_second_max"],
    )


def _shadow_to_json(shadow: ShadowRun) -> dict[str, Any]:
    return {
        "candidate_version": shadow.candidate_version,
        "comparisons_max": shadow.comparisons_max,
        "serving_latency_ms_p99_max": float_to_json(shadow.serving_latency_ms_p99_max),
    }


def _shadow_from_json(value: Row) -> ShadowRun:
    return ShadowRun(
        candidate_version=value["candidate_version"],
        comparisons_max=value["comparisons_max"],
        serving_latency_ms_p99_max=float_from_json(value["serving_latency_ms_p99_max"]),
    )
