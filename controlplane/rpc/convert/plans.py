"""Plans on the wire: the summary first, then targets and those left out in parts that fit a message."""

from collections.abc import Iterator

from lineside.v1 import rollout_service_pb2

from controlplane import limits
from controlplane.domain.plan import LeftOut, PlannedTarget, PlannedWave, RolloutPlan
from controlplane.rpc.convert.times import optional_time_to_proto

_Part = rollout_service_pb2.PlanRolloutResponse


def plan_to_proto(plan: RolloutPlan) -> Iterator[rollout_service_pb2.PlanRolloutResponse]:
    """Yield the plan in parts, of at most PLAN_ROWS_A_MESSAGE rows each."""
    yield _Part(plan=_summary_to_proto(plan))
    rows = limits.PLAN_ROWS_A_MESSAGE
    for start in range(0, len(plan.targets), rows):
        yield _Part(targets=map(_target_to_proto, plan.targets[start : start + rows]))
    for start in range(0, len(plan.left_out), rows):
        yield _Part(left_out=map(_left_out_to_proto, plan.left_out[start : start + rows]))


def _summary_to_proto(plan: RolloutPlan) -> rollout_service_pb2.RolloutPlan:
    # It ends when its last wave passes; where that cannot be said, neither can the end.
    end_time = plan.waves[-1].pass_time_estimate if plan.waves else None
    return rollout_service_pb2.RolloutPlan(
        waves=map(_wave_to_proto, plan.waves),
        target_count=len(plan.targets),
        left_out_count=len(plan.left_out),
        fetch_bytes=sum(wave.fetch_bytes for wave in plan.waves),
        end_time_estimate=optional_time_to_proto(end_time),
        related_rollout=f"rollouts/{plan.related_id}" if plan.related_id is not None else "",
        warnings=plan.warnings,
    )


def _wave_to_proto(wave: PlannedWave) -> rollout_service_pb2.PlannedWave:
    return rollout_service_pb2.PlannedWave(
        index=wave.index,
        size=str(wave.size),
        agent_count=len(wave.agents),
        device_classes=wave.device_classes,
        fetch_bytes=wave.fetch_bytes,
        admit_time_estimate=optional_time_to_proto(wave.admit_time_estimate),
        pass_time_estimate=optional_time_to_proto(wave.pass_time_estimate),
        needs_approval=wave.needs_approval,
    )


def _target_to_proto(target: PlannedTarget) -> rollout_service_pb2.PlannedTarget:
    return rollout_service_pb2.PlannedTarget(
        agent=f"agents/{target.agent_id}",
        wave=target.wave,
        device_class=target.device_class,
        fetch_bytes=target.fetch_bytes,
        disk_free_bytes=target.disk_free_bytes,
        connected=target.connected,
        swap_time_earliest=optional_time_to_proto(target.swap_time_earliest),
        warning=target.warning,
    )


def _left_out_to_proto(left_out: LeftOut) -> rollout_service_pb2.LeftOutAgent:
    return rollout_service_pb2.LeftOutAgent(
        agent=f"agents/{left_out.agent_id}", reason=left_out.reason, message=left_out.message
    )
