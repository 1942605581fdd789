"""Lineage on the wire."""

from datetime import datetime, timedelta

from lineside.v1 import lineage_service_pb2

from controlplane.domain.lineage import AgentUse, Ancestor, Lineage, RolloutUse
from controlplane.rpc.convert.names import version_name
from controlplane.rpc.convert.times import time_to_proto

_Wire = lineage_service_pb2.Lineage


def lineage_to_proto(lineage: Lineage, *, now: datetime, silent_seconds_max: float) -> lineage_service_pb2.Lineage:
    """`now` and the longest silence say which agents count as connected."""
    heard_since = now - timedelta(seconds=silent_seconds_max)
    return _Wire(
        ancestors=map(_ancestor_to_proto, lineage.ancestors),
        rollouts=map(_rollout_to_proto, lineage.rollouts),
        agents=[_agent_to_proto(agent, heard_since) for agent in lineage.agents],
        truncated=lineage.truncated,
    )


def _ancestor_to_proto(ancestor: Ancestor) -> lineage_service_pb2.Lineage.Ancestor:
    message = _Wire.Ancestor(
        model_version=version_name(ancestor.model_id, ancestor.version),
        create_time=time_to_proto(ancestor.create_time),
    )
    training = ancestor.training
    if training is None:
        return message
    origins = training.origins
    message.MergeFrom(
        _Wire.Ancestor(
            training_run=f"trainingRuns/{training.run_id}",
            trainer=training.trainer,
            dataset=f"datasets/{training.dataset_id}",
            items=origins.splits,
            items_by_agent={f"agents/{agent}" if agent else "": count for agent, count in origins.agents.items()},
            items_by_line=origins.lines,
            labels_by_annotator=origins.annotators,
            items_by_label=origins.labels,
            base_version=version_name(ancestor.model_id, training.base_version),
            judgement=training.judgement,
            decider=training.decider,
        )
    )
    return message


def _rollout_to_proto(use: RolloutUse) -> lineage_service_pb2.Lineage.RolloutUse:
    return _Wire.RolloutUse(
        rollout=f"rollouts/{use.rollout_id}",
        deployment=f"deployments/{use.deployment_id}",
        state=use.state.value,
        create_time=time_to_proto(use.create_time),
    )


def _agent_to_proto(use: AgentUse, heard_since: datetime) -> lineage_service_pb2.Lineage.AgentUse:
    return _Wire.AgentUse(agent=f"agents/{use.agent_id}", place=use.place, connected=use.receive_time >= heard_since)
