"""Certificates are renewed long before they expire, and an expired one says what to do."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from agent.app.conditions import CERTIFICATE_VALID, Conditions
from agent.app.ports import Identity, RenewedCertificate
from agent.app.renewal import Renewal
from tests.support.clock import START, InlineExecutor, LoopClock
from tests.support.fake_controller import FakeController

LIFETIME = timedelta(days=30)


class MemoryCertificates:
    """A certificate that is as young as its last installation."""

    def __init__(self, clock: LoopClock) -> None:
        self._clock = clock
        self.issued = START
        self.installed = 0
        self.skew = timedelta(0)
        """How far the controller's clock is ahead of this box's."""

    def read(self) -> Identity:
        return Identity(key_pem=b"", certificate_pem=b"", ca_pem=b"")

    def expire_time(self) -> datetime:
        return self.issued + LIFETIME

    def lifetime(self) -> timedelta:
        return LIFETIME

    def new_request(self) -> bytes:
        return b"request"

    def install(self, renewed: RenewedCertificate) -> None:
        self.installed += 1
        self.issued = self._clock.now() + self.skew


class Office:
    def __init__(self) -> None:
        self.clock = LoopClock()
        self.controller = FakeController()
        self.controller.renewed = RenewedCertificate(certificate_pem="c", ca_certificate_pem="ca")
        self.certificates = MemoryCertificates(self.clock)
        self.conditions = Conditions(self.clock)
        self.renewal = Renewal(
            certificates=self.certificates,
            controller=self.controller,
            conditions=self.conditions,
            clock=self.clock,
            rng=random.Random(1),
        )

    def days(self) -> float:
        return self.clock.monotonic() / 86_400


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    asyncio.get_running_loop().set_default_executor(InlineExecutor())
    found = Office()
    task = asyncio.create_task(found.renewal.run())
    yield found
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_is_renewed_at_two_thirds_of_its_life_and_again(office: Office) -> None:
    await office.clock.run_until(lambda: office.certificates.installed == 1, seconds_max=30 * 86_400)
    assert 18 <= office.days() <= 22
    assert office.controller.reconnects == 1
    await office.clock.run_until(lambda: office.certificates.installed == 2, seconds_max=30 * 86_400)
    assert 36 <= office.days() <= 44


async def test_a_controller_that_is_away_is_asked_until_it_answers(office: Office) -> None:
    office.controller.away()
    await office.clock.advance(25 * 86_400)
    office.controller.back()
    await office.clock.run_until(lambda: office.certificates.installed == 1, seconds_max=3600)


async def test_an_expired_certificate_is_a_condition_with_a_remedy(office: Office) -> None:
    office.controller.away()
    await office.clock.advance(31 * 86_400)
    (condition,) = [each for each in office.conditions.all() if each.type == CERTIFICATE_VALID]
    assert condition.state == "FALSE"
    assert "lineside-agent enroll" in condition.message


@pytest.mark.parametrize("years", [-26, 10])
async def test_a_clock_that_is_years_off_neither_starves_nor_hurries_renewal(office: Office, years: int) -> None:
    """The controller's clock decides what it issues; the box's is off by years and stays so."""
    office.certificates.issued = START + timedelta(days=365 * years)
    office.certificates.skew = timedelta(days=365 * years)
    await office.clock.run_until(lambda: office.certificates.installed == 1, seconds_max=3600)
    await office.clock.advance(60 * 86_400)
    assert 3 <= office.certificates.installed <= 5, "every 20 days"
