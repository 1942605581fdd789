"""Renews the agent's certificate long before it expires, with a new key each time.

The box's clock may be years off. A certificate is also renewed by its age since this process got it, and at once
where the clock is before its beginning; one that this process has just got is not renewed again only because the clock
is past its end.
"""

import asyncio
import random
from datetime import timedelta

import structlog

from agent import limits
from agent.app import conditions
from agent.app.conditions import Conditions
from agent.app.ports import Certificates, Clock, Controller
from agent.domain.backoff import delay_seconds
from agent.domain.errors import ControllerError, EnrollmentError, StateError

_log = structlog.get_logger()

_LOOK_SECONDS_MAX = 3600.0
"""How often the clock is looked at while nothing is due: a box that slept or whose clock was set finds out."""


class Renewal:
    """One per agent. `run` until cancelled."""

    def __init__(
        self,
        *,
        certificates: Certificates,
        controller: Controller,
        conditions: Conditions,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._certificates = certificates
        self._controller = controller
        self._conditions = conditions
        self._clock = clock
        self._rng = rng
        self._since_seconds = clock.monotonic()
        """When this process began or last renewed, on the monotonic clock."""
        self._has_renewed = False

    async def run(self) -> None:
        failures = 0
        share = self._share()
        while True:
            seconds = self._due_seconds(share)
            if seconds > 0:
                await self._clock.sleep(min(seconds, _LOOK_SECONDS_MAX))
                continue
            try:
                await self.renew()
            except (ControllerError, EnrollmentError, StateError) as error:
                failures += 1
                self._tell(error)
                await self._clock.sleep(self._retry_seconds(failures))
            else:
                failures, share = 0, self._share()

    async def renew(self) -> None:
        """Get and install the next certificate, and use it from the next connection on."""
        csr_der = await asyncio.to_thread(self._certificates.new_request)
        renewed = await self._controller.renew_certificate(csr_der)
        await asyncio.to_thread(self._certificates.install, renewed)
        await self._controller.reconnect()
        self._since_seconds = self._clock.monotonic()
        self._has_renewed = True
        expire_time = self._certificates.expire_time()
        _log.info("certificate_renewed", expire_time=expire_time.isoformat())
        self._conditions.set(
            conditions.CERTIFICATE_VALID, holds=True, reason="Renewed", message=f"valid until {expire_time.isoformat()}"
        )

    def _share(self) -> float:
        """Share of the lifetime at which to renew, spread so that a fleet does not renew at once."""
        return limits.RENEW_AT_LIFETIME_SHARE + limits.RENEW_JITTER_SHARE * (self._rng.random() - 0.5)

    def _due_seconds(self, share: float) -> float:
        lifetime, now = self._certificates.lifetime(), self._clock.now()
        left = self._certificates.expire_time() - now
        by_age_seconds = lifetime.total_seconds() * share - (self._clock.monotonic() - self._since_seconds)
        clock_is_off = left > lifetime or left <= timedelta(0)
        if clock_is_off:
            return by_age_seconds if self._has_renewed else 0.0
        return min(by_age_seconds, (left - lifetime * (1 - share)).total_seconds())

    def _tell(self, error: ControllerError | EnrollmentError | StateError) -> None:
        left = self._certificates.expire_time() - self._clock.now()
        if left > timedelta(0):
            _log.warning("certificate_not_renewed", reason=error.reason, error=str(error), days_left=left.days)
            return
        message = (
            f"the certificate expired at {self._certificates.expire_time().isoformat()}; make a join token and run "
            "`lineside-agent enroll` on this folder again. The agent goes on serving meanwhile"
        )
        _log.error("certificate_expired", reason=error.reason, error=message)
        self._conditions.set(conditions.CERTIFICATE_VALID, holds=False, reason="Expired", message=message)

    def _retry_seconds(self, failures: int) -> float:
        """Bounded by a small share of the lifetime: there is time, and a fleet need not hurry."""
        lifetime_seconds = self._certificates.lifetime().total_seconds()
        return delay_seconds(
            failures,
            rng=self._rng,
            first_seconds=limits.BACKOFF_FIRST_SECONDS,
            max_seconds=max(limits.BACKOFF_MAX_SECONDS, lifetime_seconds * limits.RENEW_RETRY_LIFETIME_SHARE),
        )
