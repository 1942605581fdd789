"""Rollouts: start them, watch them, take part in them by hand."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TypeAlias

import grpc
from lineside.v1 import rollout_pb2, rollout_service_pb2, rollout_service_pb2_grpc

from controlplane.client import limits
from controlplane.client.channel import Connection
from controlplane.client.errors import UnreachableError, WaitTimeoutError
from controlplane.client.names import deployment_name, rollout_name, version_name
from controlplane.client.pages import iterate
from controlplane.client.retry import Backoff, Repeat

Rollout: TypeAlias = rollout_pb2.Rollout
ENDED = frozenset({Rollout.STATE_SUCCEEDED, Rollout.STATE_ROLLED_BACK, Rollout.STATE_ABORTED})
"""States in which a rollout stays unless somebody acts."""


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
        waves: Sequence[str],
        bake: timedelta | None = None,
        gate: rollout_pb2.GatePolicy | None = None,
    ) -> Rollout:
        """Move a deployment of `model` to `version` in cumulative `waves` ("1", "50%", "100%")."""
        strategy = rollout_pb2.RolloutStrategy(waves=waves, gate=gate)
        if bake is not None:
            strategy.bake.FromTimedelta(bake)
        wanted = Rollout(
            deployment=deployment_name(deployment), target_version=version_name(model, version), strategy=strategy
        )
        request = rollout_service_pb2.CreateRolloutRequest(rollout=wanted, request_id=str(uuid.uuid4()))
        return self._connection.call(self._stub.CreateRollout, request)

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

    def watch(self, rollout: str, *, timeout_seconds: float | None = None) -> Iterator[Rollout]:
        """Yield the rollout now and at each change until it has ended; open the stream again when it breaks.

        Raises WaitTimeoutError when it has not ended in `timeout_seconds`, and UnreachableError when the controller
        stays away for longer than limits allow.
        """
        pacing, last = self._connection.pacing, None
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
                    if response.rollout != last:
                        backoff.reset()
                        last = response.rollout
                        yield last
            except UnreachableError as error:
                broken = error
            if pacing.clock() - opened > limits.RETRY_CAP_SECONDS:
                backoff.reset()
            if last is not None and last.state in ENDED:
                return
            if broken is not None and broken.code == grpc.StatusCode.DEADLINE_EXCEEDED.name:
                continue
            if not backoff.wait():
                raise broken or WaitTimeoutError("the controller ends the watch again and again", field="rollout")

    def wait(
        self, rollout: str, *, timeout_seconds: float | None = None, changed: Callable[[Rollout], None] = lambda _: None
    ) -> Rollout:
        """Return the rollout when it has ended, however it did; `changed` is told each state before. See `watch`."""
        last: Rollout | None = None
        for last in self.watch(rollout, timeout_seconds=timeout_seconds):
            changed(last)
        assert last is not None, "a watch yields at least the rollout's end"
        return last

    def pause(self, rollout: str, *, etag: str = "") -> Rollout:
        """Admit no further wave until it is resumed."""
        request = rollout_service_pb2.PauseRolloutRequest(name=rollout_name(rollout), etag=etag)
        return self._connection.call(self._stub.PauseRollout, request, repeat=_repeat(etag))

    def resume(self, rollout: str, *, etag: str = "") -> Rollout:
        """Go on after a pause."""
        request = rollout_service_pb2.ResumeRolloutRequest(name=rollout_name(rollout), etag=etag)
        return self._connection.call(self._stub.ResumeRollout, request, repeat=_repeat(etag))

    def abort(self, rollout: str, *, etag: str = "") -> Rollout:
        """End the rollout; targets return to the version before."""
        request = rollout_service_pb2.AbortRolloutRequest(name=rollout_name(rollout), etag=etag)
        return self._connection.call(self._stub.AbortRollout, request, repeat=_repeat(etag))

    def rollback(self, rollout: str, *, etag: str = "") -> Rollout:
        """Return every target to the version before and track it to the end."""
        request = rollout_service_pb2.RollbackRolloutRequest(name=rollout_name(rollout), etag=etag)
        return self._connection.call(self._stub.RollbackRollout, request, repeat=_repeat(etag))

    def retry(self, rollout: str, *, etag: str = "") -> Rollout:
        """Offer the version again to targets whose install failed."""
        request = rollout_service_pb2.RetryRolloutRequest(name=rollout_name(rollout), etag=etag)
        return self._connection.call(self._stub.RetryRollout, request, repeat=_repeat(etag))


def _repeat(etag: str) -> Repeat:
    """With an etag a lost race is the caller's to judge: what was seen is no longer so."""
    return Repeat.NEVER if etag else Repeat.LOST_RACE
