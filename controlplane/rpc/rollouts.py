"""RolloutService."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from lineside.v1 import rollout_pb2, rollout_service_pb2, rollout_service_pb2_grpc

from controlplane.app.planning import Planning
from controlplane.app.rehearsals import Rehearsals
from controlplane.app.rollouts import Rollouts
from controlplane.rpc.authentication import Context, current_actor
from controlplane.rpc.convert.audit import event_to_proto
from controlplane.rpc.convert.etags import parse_etag
from controlplane.rpc.convert.names import parse_deployment_name, parse_rollout_name
from controlplane.rpc.convert.plans import plan_to_proto
from controlplane.rpc.convert.rehearsals import assumptions_from_proto, rehearsed_to_proto
from controlplane.rpc.convert.rollouts import rollout_request_from_proto, rollout_to_proto, rollout_wanted


class RolloutServicer(rollout_service_pb2_grpc.RolloutServiceServicer):
    """Rollouts, for operators."""

    def __init__(self, rollouts: Rollouts, planning: Planning, rehearsals: Rehearsals) -> None:
        self._rollouts = rollouts
        self._planning = planning
        self._rehearsals = rehearsals

    async def CreateRollout(
        self, request: rollout_service_pb2.CreateRolloutRequest, context: Context
    ) -> rollout_pb2.Rollout:
        return rollout_to_proto(await self._rollouts.create(rollout_request_from_proto(request, actor=current_actor())))

    async def GetRollout(self, request: rollout_service_pb2.GetRolloutRequest, context: Context) -> rollout_pb2.Rollout:
        return rollout_to_proto(await self._rollouts.get(parse_rollout_name(request.name, field="name")))

    async def ListRollouts(
        self, request: rollout_service_pb2.ListRolloutsRequest, context: Context
    ) -> rollout_service_pb2.ListRolloutsResponse:
        named = request.deployment
        page = await self._rollouts.list(
            deployment_id=parse_deployment_name(named, field="deployment") if named else None,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return rollout_service_pb2.ListRolloutsResponse(
            rollouts=map(rollout_to_proto, page.items), next_page_token=page.next_token
        )

    async def WatchRollout(
        self, request: rollout_service_pb2.WatchRolloutRequest, context: Context
    ) -> AsyncIterator[rollout_service_pb2.WatchRolloutResponse]:
        rollout_id = parse_rollout_name(request.name, field="name")
        async with aclosing(self._rollouts.watch(rollout_id)) as changes:
            async for change in changes:
                yield rollout_service_pb2.WatchRolloutResponse(
                    rollout=rollout_to_proto(change.rollout), events=map(event_to_proto, change.events)
                )

    async def PauseRollout(
        self, request: rollout_service_pb2.PauseRolloutRequest, context: Context
    ) -> rollout_pb2.Rollout:
        rollout_id = parse_rollout_name(request.name, field="name")
        revision = parse_etag(request.etag)
        return rollout_to_proto(await self._rollouts.pause(rollout_id, actor=current_actor(), revision=revision))

    async def ResumeRollout(
        self, request: rollout_service_pb2.ResumeRolloutRequest, context: Context
    ) -> rollout_pb2.Rollout:
        rollout_id = parse_rollout_name(request.name, field="name")
        revision = parse_etag(request.etag)
        return rollout_to_proto(await self._rollouts.resume(rollout_id, actor=current_actor(), revision=revision))

    async def AbortRollout(
        self, request: rollout_service_pb2.AbortRolloutRequest, context: Context
    ) -> rollout_pb2.Rollout:
        rollout_id = parse_rollout_name(request.name, field="name")
        aborted = await self._rollouts.abort(
            rollout_id, keep=request.keep, actor=current_actor(), revision=parse_etag(request.etag)
        )
        return rollout_to_proto(aborted)

    async def RollbackRollout(
        self, request: rollout_service_pb2.RollbackRolloutRequest, context: Context
    ) -> rollout_pb2.Rollout:
        rollout_id = parse_rollout_name(request.name, field="name")
        revision = parse_etag(request.etag)
        return rollout_to_proto(await self._rollouts.rollback(rollout_id, actor=current_actor(), revision=revision))

    async def RetryRollout(
        self, request: rollout_service_pb2.RetryRolloutRequest, context: Context
    ) -> rollout_pb2.Rollout:
        rollout_id = parse_rollout_name(request.name, field="name")
        revision = parse_etag(request.etag)
        return rollout_to_proto(await self._rollouts.retry(rollout_id, actor=current_actor(), revision=revision))

    async def ApproveRollout(
        self, request: rollout_service_pb2.ApproveRolloutRequest, context: Context
    ) -> rollout_pb2.Rollout:
        approved = await self._rollouts.approve(
            parse_rollout_name(request.name, field="name"),
            wave=request.wave if request.HasField("wave") else None,
            actor=current_actor(),
            revision=parse_etag(request.etag),
        )
        return rollout_to_proto(approved)

    async def PlanRollout(
        self, request: rollout_service_pb2.PlanRolloutRequest, context: Context
    ) -> AsyncIterator[rollout_service_pb2.PlanRolloutResponse]:
        for part in plan_to_proto(await self._planning.plan(rollout_wanted(request.rollout, actor=current_actor()))):
            yield part

    async def RehearseRollout(
        self, request: rollout_service_pb2.RehearseRolloutRequest, context: Context
    ) -> AsyncIterator[rollout_service_pb2.RehearseRolloutResponse]:
        plays = self._rehearsals.rehearse(
            rollout_wanted(request.rollout, actor=current_actor()),
            assumptions_from_proto(request.assumptions),
            plays=request.plays,
            first_seed=request.first_seed,
        )
        async with aclosing(plays):
            async for rehearsed in plays:
                yield rehearsed_to_proto(rehearsed)
