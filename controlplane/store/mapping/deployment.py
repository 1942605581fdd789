"""Deployments and the policies that desired slots share with them."""

from types import MappingProxyType
from typing import Any

from controlplane.domain.deployment import Deployment, PerformanceHint, RuntimePolicy
from controlplane.domain.ids import AgentId, DeploymentId, ModelId
from controlplane.store.mapping.condition import condition_from_json, condition_to_json
from controlplane.store.mapping.result_policy import result_policy_from_json, result_policy_to_json
from controlplane.store.mapping.sample_policy import sample_policy_from_json, sample_policy_to_json
from controlplane.store.mapping.values import Row


def deployment_to_row(deployment: Deployment) -> dict[str, Any]:
    return {
        "id": deployment.id,
        "uid": deployment.uid,
        "create_time": deployment.create_time,
        "update_time": deployment.update_time,
        "model_id": deployment.model_id,
        "version": deployment.version,
        "selector": deployment.selector,
        "runtime_policy": runtime_policy_to_json(deployment.runtime_policy),
        "sample_policy": sample_policy_to_json(deployment.sample_policy),
        "result_policy": result_policy_to_json(deployment.result_policy),
        "offer": deployment.offer,
        "revision": deployment.revision,
        "priority": deployment.priority,
        "kept_versions": dict(deployment.kept_versions),
        "conditions": [condition_to_json(condition) for condition in deployment.conditions],
    }


def deployment_from_row(row: Row) -> Deployment:
    return Deployment(
        id=DeploymentId(row["id"]),
        uid=row["uid"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        model_id=ModelId(row["model_id"]),
        version=row["version"],
        selector=row["selector"],
        runtime_policy=runtime_policy_from_json(row["runtime_policy"]),
        sample_policy=sample_policy_from_json(row["sample_policy"]),
        result_policy=result_policy_from_json(row["result_policy"]),
        offer=row["offer"],
        revision=row["revision"],
        priority=row["priority"],
        kept_versions=MappingProxyType(
            {AgentId(agent_id): version for agent_id, version in row["kept_versions"].items()}
        ),
        conditions=tuple(condition_from_json(condition) for condition in row["conditions"]),
    )


def runtime_policy_to_json(policy: RuntimePolicy) -> dict[str, Any]:
    return {
        "hint": policy.hint.value,
        "inference_precision": policy.inference_precision,
        "devices": list(policy.devices),
        "swap_wait_seconds": policy.swap_wait_seconds,
    }


def runtime_policy_from_json(value: Row) -> RuntimePolicy:
    return RuntimePolicy(
        hint=PerformanceHint(value["hint"]),
        inference_precision=value["inference_precision"],
        devices=tuple(value["devices"]),
        # Rows of earlier controllers have none.
        swap_wait_seconds=value.get("swap_wait_seconds", 0.0),
    )
