"""Delivers what is spooled: evidence batches in order, and samples.

Rules kept here:
- A batch or sample leaves the disk only after the controller has said that it holds it; what was sent and not
  acknowledged is sent again under the same number or id, so that it is stored exactly once.
- What the controller refuses for good is set aside until the next start, so that it does not hold up the rest.
- Samples go over the channel of bytes: they delay neither sync nor evidence.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import structlog

from agent import limits
from agent.app import conditions
from agent.app.conditions import Conditions
from agent.app.ports import Clock, Controller, EvidenceSpool, SampleSpool
from agent.app.result_selection import selected
from agent.app.wakeup import Wakeup
from agent.domain.backoff import delay_seconds
from agent.domain.errors import ControllerError, Reason, StateError
from agent.domain.result_policy import ResultPolicy

_log = structlog.get_logger()

_Key = TypeVar("_Key", bound=int | str)


class Delivery(Generic[_Key]):
    """Delivers whatever `pending` names, oldest first, through `deliver`, for ever."""

    def __init__(
        self,
        kind: str,
        *,
        pending: Callable[[], Awaitable[Sequence[_Key]]],
        deliver: Callable[[_Key], Awaitable[None]],
        conditions: Conditions,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._kind = kind
        self._pending = pending
        self._deliver = deliver
        self._conditions = conditions
        self._clock = clock
        self._rng = rng
        self._wakeup = Wakeup()
        self._refused: set[_Key] = set()

    def hurry(self) -> None:
        """Look again now: something has come, or the controller is back. For any thread."""
        self._wakeup.wake()

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                await self._deliver_all()
            except ControllerError as error:
                failures += 1
                seconds = self._delay_seconds(error, failures)
                log = _log.warning if failures == 1 else _log.debug
                log("delivery_postponed", kind=self._kind, error=str(error), retry_seconds=round(seconds, 1))
            else:
                failures = 0
                seconds = limits.DELIVERY_INTERVAL_SECONDS
            await self._wakeup.wait(self._clock, seconds)

    async def flush(self) -> None:
        """One try at everything. Raises ControllerError when the controller is out of reach."""
        await self._deliver_all()

    async def _deliver_all(self) -> None:
        for key in await self._pending():
            if key in self._refused:
                continue
            try:
                await self._deliver(key)
            except StateError as error:
                _log.error("spool_unreadable", kind=self._kind, key=key, error=str(error))
                self._refused.add(key)
            except ControllerError as error:
                if error.retryable or error.reason is Reason.AGENT_REVOKED:
                    raise
                self._refuse(key, error)

    def _refuse(self, key: _Key, error: ControllerError) -> None:
        _log.error("delivery_refused", kind=self._kind, key=key, reason=error.reason, error=str(error))
        self._refused.add(key)
        self._conditions.set(
            conditions.DELIVERY_ACCEPTED, holds=False, reason="Refused", message=f"{self._kind} {key}: {error}"
        )

    def _delay_seconds(self, error: ControllerError, failures: int) -> float:
        if error.reason is Reason.AGENT_REVOKED:
            return limits.REVOKED_RETRY_SECONDS * (0.5 + self._rng.random())
        return delay_seconds(
            failures, rng=self._rng, first_seconds=limits.BACKOFF_FIRST_SECONDS, max_seconds=limits.BACKOFF_MAX_SECONDS
        )


def evidence_delivery(
    spool: EvidenceSpool,
    controller: Controller,
    *,
    conditions: Conditions,
    clock: Clock,
    rng: random.Random,
    policy_of: Callable[[str], ResultPolicy] = lambda _: ResultPolicy(),
) -> Delivery[int]:
    """Delivers sealed segments; `policy_of` gives a slot's policy, from any thread."""

    async def pending() -> Sequence[int]:
        return spool.pending()

    async def deliver(number: int) -> None:
        # Computing windows takes tens of milliseconds of a full segment: not in the loop that serves.
        batch = await asyncio.to_thread(lambda: selected(spool.read(number), policy_of))
        await controller.report_evidence(batch)
        await asyncio.to_thread(spool.discard, number)

    return Delivery("evidence", pending=pending, deliver=deliver, conditions=conditions, clock=clock, rng=rng)


def sample_delivery(
    spool: SampleSpool, controller: Controller, *, conditions: Conditions, clock: Clock, rng: random.Random
) -> Delivery[str]:
    """Uploads samples, one at a time."""

    async def pending() -> Sequence[str]:
        return spool.pending()

    async def deliver(sample_id: str) -> None:
        sample = await asyncio.to_thread(spool.read, sample_id)
        if sample is not None:
            await controller.upload_sample(sample)
        await asyncio.to_thread(spool.discard, sample_id)

    return Delivery("samples", pending=pending, deliver=deliver, conditions=conditions, clock=clock, rng=rng)


async def seal_regularly(spool: EvidenceSpool, clock: Clock) -> None:
    """Seal segments as they grow old and hold the spool's bound, whether or not the controller is in reach."""
    while True:
        await asyncio.to_thread(spool.seal)
        await clock.sleep(limits.DELIVERY_INTERVAL_SECONDS)
