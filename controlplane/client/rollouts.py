"""Rollouts: start them, watch them, take part in them by hand."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias, TypeVar

import grpc
from lineside.v1 import rollout_pb2, rollout_service_pb2, rollout_service_pb2_grpc

from controlplane.client import limits
from controlplane.client.channel import Connection
from controlplane.client.errors import IntegrityError, UnreachableError, WaitTimeoutError
from controlplane.client.names import deployment_name, rollout_name, version_name
from controlplane.client.pages import iterate
from controlplane.client.retry import Backoff, Repeat

T = TypeVar("T")
Rollout: TypeAlias = rollout_pb2.Rollout
Strategy: TypeAlias = rollout_pb2.RolloutStrategy
Change: TypeAlias = rollout_service_pb2.WatchRolloutResponse
WhenActive: TypeAlias = rollout_service_pb2.CreateRolloutRequest.WhenActive
ENDED = frozenset({Rollout.STATE_SUCCEEDED, Rollout.STATE_ROLLED_BACK, Rollout.STATE_ABORTED, Rollout.STATE_SUPERSEDED})
"""States in which a rollout stays unless somebody acts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a rollout would do."""

    summary: rollout_service_pb2.RolloutPlan
    targets: Sequence[rollout_service_pb2.PlannedTarget]
    """By wave, then agent."""
    left_out: Sequence[rollout_service_pb2.LeftOutAgent]
    """Agents of the deployment that would not be moved, by name."""


OnPlay = Callable[[int, int], None]
"""Told how many plays of a rehearsal are done, and of how many."""


class Rollouts:
    """Calls of RolloutService. Rollouts are named by id or resource name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = rollout_service_pb2_grpc.RolloutServiceStub(connection.api)

    def start(
        self,
        deployment: str,
        *,
        model: str,
        version: int,
        strategy: Strategy | None = None,
        waves: Sequence[str] = (),
        bake: timedelta | None = None,
        gate: rollout_pb2.GatePolicy | None = None,
        when_active: WhenActive.ValueType = rollout_service_pb2.CreateRolloutRequest.WHEN_ACTIVE_UNSPECIFIED,
    ) -> Rollout:
        """Move a deployment of `model` to `version` by `strategy`; or, where cumulative waves ("1", "50%", "100%"),
        a bake time and a gate are all there is to say, by those."""
        wanted = _wanted(deployment, model, version, strategy or _strategy(waves, bake, gate))
        request = rollout_service_pb2.CreateRolloutRequest(
            rollout=wanted, request_id=str(uuid.uuid4()), when_active=when_active
        )
        return self._connection.call(self._stub.CreateRollout, request)

    def plan(self, deployment: str, *, model: str, version: int, strategy: Strategy) -> Plan:
        """Return what such a rollout would do on the inventory as it is; nothing is changed."""
        request = rollout_service_pb2.PlanRolloutRequest(rollout=_wanted(deployment, model, version, strategy))

        def read() -> Plan:
            summary = rollout_service_pb2.RolloutPlan()
            targets: list[rollout_service_pb2.PlannedTarget] = []
            left_out: list[rollout_service_pb2.LeftOutAgent] = []
            for part in self._connection.receive(self._stub.PlanRollout, request, deadline_seconds=limits.PLAN_SECONDS):
                summary.MergeFrom(part.plan)
                targets += part.targets
                left_out += part.left_out
            return Plan(summary=summary, targets=targets, left_out=left_out)

        return self._again(read)

    def rehearse(
        self,
        deployment: str,
        *,
        model: str,
        version: int,
        strategy: Strategy,
        assumptions: rollout_service_pb2.RehearsalAssumptions | None = None,
        plays: int = 0,
        first_seed: int = 0,
        progress: OnPlay = lambda *_: None,
    ) -> rollout_service_pb2.RehearsalReport:
        """Play such a rollout `plays` times on a simulated copy of the inventory, under the assumptions, and return
        what came out; nothing is changed. The same seeds on the same inventory give the same report."""
        request = rollout_service_pb2.RehearseRolloutRequest(
            rollout=_wanted(deployment, model, version, strategy),
            assumptions=assumptions,
            plays=plays,
            first_seed=first_seed,
        )

        def read() -> rollout_service_pb2.RehearsalReport:
            for part in self._connection.receive(
                self._stub.RehearseRollout, request, deadline_seconds=limits.REHEARSE_SECONDS
            ):
                progress(part.plays_done, part.plays)
                if part.HasField("report"):
                    return part.report
            raise IntegrityError("the rehearsal ended without a report", remedy="look at the controller's log")

        return self._again(read)

    def get(self, rollout: str) -> Rollout:
        """Return a rollout."""
        request = rollout_service_pb2.GetRolloutRequest(name=rollout_name(rollout))
        return self._connection.call(self._stub.GetRollout, request)

    def list(self, *, deployment: str = "", limit: int | None = None) -> Iterator[Rollout]:
        """Yield rollouts, newest first, those of `deployment` when it is given."""
        parent = deployment_name(deployment) if deployment else ""

        def fetch(size: int, token: str) -> tuple[list[Rollout], str]:
            request = rollout_service_pb2.ListRolloutsRequest(page_size=size, page_token=token, deployment=parent)
            page = self._connection.call(self._stub.ListRollouts, request)
            return [*page.rollouts], page.next_page_token

        return iterate(fetch, limit=limit)

    def watch(self, rollout: str, *, timeout_seconds: float | None = None) -> Iterator[Change]:
        """Yield the rollout now and at each change, each with what was decided since the one before, until it has
        ended; open the stream again when it breaks.

        Raises WaitTimeoutError when it has not ended in `timeout_seconds`, and UnreachableError when the controller
        stays away for longer than limits allow.
        """
        pacing, news = self._connection.pacing, _News()
        end = None if timeout_seconds is None else pacing.clock() + timeout_seconds
        backoff = Backoff(pacing, budget_seconds=limits.TRANSFER_RETRY_SECONDS)
        request = rollout_service_pb2.WatchRolloutRequest(name=rollout_name(rollout))
        while True:
            left = limits.WATCH_SECONDS if end is None else min(limits.WATCH_SECONDS, end - pacing.clock())
            if left <= 0:
                raise WaitTimeoutError(
                    f"{rollout} has not ended in {timeout_seconds:g} s",
                    field="timeout",
                    remedy=f"go on with `lineside rollouts watch {rollout}`",
                )
            opened, broken = pacing.clock(), None
            try:
                for response in self._connection.receive(self._stub.WatchRollout, request, deadline_seconds=left):
                    if change := news.of(response):
                        backoff.reset()
                        yield change
            except UnreachableError as error:
                broken = error
            if pacing.clock() - opened > limits.RETRY_CAP_SECONDS:
                backoff.reset()
            if news.last is not None and news.last.state in ENDED:
                return
            if broken is not None and broken.code == grpc.StatusCode.DEADLINE_EXCEEDED.name:
                continue
            if not backoff.wait():
                raise broken or WaitTimeoutError("the controller ends the watch again and again", field="rollout")

    def wait(
        self, rollout: str, *, timeout_seconds: float | None = None, changed: Callable[[Change], None] = lambda _: None
    ) -> Rollout:
        """Return the rollout when it has ended, however it did; `changed` is told each change before. See `watch`."""
        last: Rollout | None = None
        for change in self.watch(rollout, timeout_seconds=timeout_seconds):
            last = change.rollout
            changed(change)
        assert last is not None, "a watch yields at least the rollout's end"
        return last

    def approve(self, rollout: str, *, wave: int | None = None, etag: str = "") -> Rollout:
        """Approve the next wave that waits for it; refused when that is not `wave`, an index from 0."""
        request = rollout_service_pb2.ApproveRolloutRequest(name=rollout_name(rollout), etag=etag, wave=wave)
        return self._connection.call(self._stub.ApproveRollout, request, repeat=_repeat(etag))

    def pause(self, rollout: str, *, etag: str = "") -> Rollout:
        """Admit no further wave until it is resumed."""
        request = rollout_service_pb2.PauseRolloutRequest(name=rollout_name(rollout), etag=etag)
        return self._connection.call(self._stub.PauseRollout, request, repeat=_repeat(etag))

    def resume(self, rollout: str, *, etag: str = "") -> Rollout:
        """Go on after a pause."""
        request = rollout_service_pb2.ResumeRolloutRequest(name=rollout_name(rollout), etag=etag)
        return self._connection.call(self._stub.ResumeRollout, request, repeat=_repeat(etag))

    def abort(self, rollout: str, *, keep: bool = False, etag: str = "") -> Rollout:
        """End the rollout; targets return to the version before, or keep the one they have until a later rollout."""
        request = rollout_service_pb2.AbortRolloutRequest(name=rollout_name(rollout), etag=etag, keep=keep)
        return self._connection.call(self._stub.AbortRollout, request, repeat=_repeat(etag))

    def rollback(self, rollout: str, *, etag: str = "") -> Rollout:
        """Return every target to the version before and track it to the end."""
        request = rollout_service_pb2.RollbackRolloutRequest(name=rollout_name(rollout), etag=etag)
        return self._connection.call(self._stub.RollbackRollout, request, repeat=_repeat(etag))

    def retry(self, rollout: str, *, etag: str = "") -> Rollout:
        """Offer the version again to targets whose install failed."""
        request = rollout_service_pb2.RetryRolloutRequest(name=rollout_name(rollout), etag=etag)
        return self._connection.call(self._stub.RetryRollout, request, repeat=_repeat(etag))

    def _again(self, read: Callable[[], T]) -> T:
        """Read a stream that changes nothing; from its beginning when it broke."""
        backoff = Backoff(self._connection.pacing, budget_seconds=limits.CALL_RETRY_SECONDS)
        while True:
            try:
                return read()
            except UnreachableError as failure:
                if not Repeat.SAFE.allows(failure) or not backoff.wait():
                    raise


class _News:
    """What a watch has not told yet, over all the streams that it took."""

    def __init__(self) -> None:
        self.last: Rollout | None = None
        self._told = ""
        """Name of the newest event that was told; names sort by time."""

    def of(self, response: Change) -> Change | None:
        """Return what is new in it, None when nothing is."""
        events = [event for event in response.events if event.name > self._told]
        if response.rollout == self.last and not events:
            return None
        self.last = response.rollout
        self._told = max([self._told, *(event.name for event in events)])
        return Change(rollout=response.rollout, events=events)


def _strategy(waves: Sequence[str], bake: timedelta | None, gate: rollout_pb2.GatePolicy | None) -> Strategy:
    strategy = Strategy(waves=waves, gate=gate)
    if bake is not None:
        strategy.bake.FromTimedelta(bake)
    return strategy


def _wanted(deployment: str, model: str, version: int, strategy: Strategy) -> Rollout:
    return Rollout(
        deployment=deployment_name(deployment), target_version=version_name(model, version), strategy=strategy
    )


def _repeat(etag: str) -> Repeat:
    """With an etag a lost race is the caller's to judge: what was seen is no longer so."""
    return Repeat.NEVER if etag else Repeat.LOST_RACE
