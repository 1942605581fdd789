"""Deployments on the wire."""

from lineside.v1 import deployment_pb2, deployment_service_pb2

from controlplane.app.deployments import DeploymentRequest, DeploymentView
from controlplane.domain.deployment import SamplePolicy
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import ModelId
from controlplane.rpc.convert.conditions import condition_to_proto
from controlplane.rpc.convert.etags import etag_of
from controlplane.rpc.convert.names import parse_model_name, parse_version_name, version_name
from controlplane.rpc.convert.result_policies import result_policy_from_proto, result_policy_to_proto
from controlplane.rpc.convert.sample_policies import sample_policy_from_proto, sample_policy_to_proto
from controlplane.rpc.convert.slots import (
    runtime_policy_from_proto,
    runtime_policy_to_proto,
)
from controlplane.rpc.convert.times import time_to_proto


def deployment_request_from_proto(message: deployment_service_pb2.CreateDeploymentRequest) -> DeploymentRequest:
    """Return what is asked for; an absent sample policy is the controller's default. Raises FieldInvalidError."""
    deployment = message.deployment
    model_id = parse_model_name(deployment.model, field="deployment.model")
    has_samples = deployment.HasField("sample_policy")
    return DeploymentRequest(
        deployment_id=message.deployment_id,
        model_id=model_id,
        version=_version_from_proto(deployment.model_version, model_id),
        selector=deployment.selector,
        runtime_policy=runtime_policy_from_proto(deployment.runtime_policy),
        sample_policy=sample_policy_from_proto(deployment.sample_policy) if has_samples else SamplePolicy(),
        result_policy=result_policy_from_proto(deployment.result_policy),
        priority=deployment.priority,
        allow_empty=message.allow_empty,
        request_id=message.request_id,
    )


def _version_from_proto(name: str, model_id: ModelId) -> int | None:
    if not name:
        return None
    field = "deployment.model_version"
    model, number = parse_version_name(name, field=field)
    if model != model_id:
        raise FieldInvalidError(
            f"{name} is no version of models/{model_id}", field=field, remedy="name a version of the deployment's model"
        )
    return number


def deployment_to_proto(view: DeploymentView) -> deployment_pb2.Deployment:
    """Return the deployment and how the fleet stands to it."""
    deployment = view.deployment
    version = deployment.version
    return deployment_pb2.Deployment(
        name=f"deployments/{deployment.id}",
        uid=deployment.uid,
        create_time=time_to_proto(deployment.create_time),
        update_time=time_to_proto(deployment.update_time),
        etag=etag_of(deployment.revision),
        model=f"models/{deployment.model_id}",
        model_version=version_name(deployment.model_id, version) if version is not None else "",
        selector=deployment.selector,
        runtime_policy=runtime_policy_to_proto(deployment.runtime_policy),
        sample_policy=sample_policy_to_proto(deployment.sample_policy),
        result_policy=result_policy_to_proto(deployment.result_policy),
        active_rollout=f"rollouts/{view.active_rollout}" if view.active_rollout is not None else "",
        matched_agents=view.matched_agents,
        converged_agents=view.converged_agents,
        conditions=map(condition_to_proto, deployment.conditions),
        priority=deployment.priority,
    )
