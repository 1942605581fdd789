"""Notices between controllers, over a real PostgreSQL."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from controlplane import limits
from controlplane.app.notices import Notice, NoticeKind
from controlplane.store.notifications import PostgresNotices, _merge, _payloads, open_notices
from tests.support.postgres import PostgresServer

WAIT_SECONDS = 20.0
EVERYTHING = Notice(NoticeKind.ALL)


@dataclass
class Ear:
    """What one controller hears."""

    heard: list[Notice] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, notice: Notice) -> None:
        self.heard.append(notice)
        self.changed.set()

    async def wait_for(self, notice: Notice, *, times: int = 1) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while self.heard.count(notice) < times:
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def connected(url: str, *, source: str) -> AsyncIterator[tuple[PostgresNotices, Ear]]:
    """A controller that listens already."""
    ear = Ear()
    notices = open_notices(url, source=source, hear=ear.hear)
    assert notices is not None
    task = asyncio.create_task(notices.run())
    try:
        await ear.wait_for(EVERYTHING)
        yield notices, ear
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def desired(*names: str) -> Notice:
    return Notice(NoticeKind.DESIRED, names)


@pytest.mark.postgres
async def test_each_kind_of_notice_reaches_every_other_controller_and_not_the_teller(postgres_url: str) -> None:
    told = [desired("st-1", "st-2"), Notice(NoticeKind.ROLLOUT, ("r-1",)), Notice(NoticeKind.REVOKED, ("st-3",))]
    async with (
        connected(postgres_url, source="a") as (teller, own),
        connected(postgres_url, source="b") as (_, second),
        connected(postgres_url, source="c") as (_, third),
    ):
        for notice in told:
            teller.tell(notice)
        for ear in (second, third):
            for notice in told:
                await ear.wait_for(notice)
        assert own.heard == [EVERYTHING]


@pytest.mark.postgres
async def test_names_of_a_large_fleet_arrive_in_payloads_that_postgresql_takes(postgres_url: str) -> None:
    names = tuple(f"station-{number:05}-{'x' * 40}" for number in range(limits.NOTICE_IDS_MAX))
    async with connected(postgres_url, source="a") as (teller, _), connected(postgres_url, source="b") as (_, ear):
        teller.tell(desired(*names))
        teller.tell(Notice(NoticeKind.ROLLOUT, ("last",)))
        await ear.wait_for(Notice(NoticeKind.ROLLOUT, ("last",)))
        heard = [name for notice in ear.heard if notice.kind is NoticeKind.DESIRED for name in notice.ids]
    assert heard == list(names)


@pytest.mark.postgres
async def test_after_a_lost_connection_everything_is_noticed_once_and_nothing_told_is_lost(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    database = postgres_url.removeprefix("postgresql://postgres@/").partition("?")[0]
    async with connected(postgres_url, source="a") as (teller, _), connected(postgres_url, source="b") as (_, ear):
        await asyncio.to_thread(
            postgres_server.execute,
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
            " AND pid <> pg_backend_pid()",
        )
        await ear.wait_for(EVERYTHING, times=2)
        teller.tell(desired("st-1"))
        await ear.wait_for(desired("st-1"))
        assert ear.heard.count(EVERYTHING) == 2


@pytest.mark.postgres
async def test_a_database_that_is_away_at_first_is_waited_for(postgres_server: PostgresServer) -> None:
    ear = Ear()
    notices = open_notices(postgres_server.url("not_yet"), source="a", hear=ear.hear)
    assert notices is not None
    task = asyncio.create_task(notices.run())
    try:
        await asyncio.to_thread(postgres_server.execute, "CREATE DATABASE not_yet")
        await ear.wait_for(EVERYTHING)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(postgres_server.execute, "DROP DATABASE not_yet WITH (FORCE)")


def test_sqlite_has_no_other_controllers(empty_sqlite_url: str) -> None:
    assert open_notices(empty_sqlite_url, source="a", hear=lambda _: None) is None


def test_notices_that_wait_are_told_as_one() -> None:
    waiting = [desired("b"), Notice(NoticeKind.ROLLOUT, ("r",)), desired("a", "b")]
    assert list(_merge(waiting)) == [desired("b", "a"), Notice(NoticeKind.ROLLOUT, ("r",))]


@pytest.mark.parametrize(
    ("kind", "expected"), [(NoticeKind.DESIRED, NoticeKind.ALL), (NoticeKind.REVOKED, NoticeKind.REVOKED)]
)
def test_too_many_names_are_all_but_who_is_revoked_is_always_named(kind: NoticeKind, expected: NoticeKind) -> None:
    names = tuple(str(number) for number in range(limits.NOTICE_IDS_MAX + 1))
    (merged,) = _merge([Notice(kind, names)])
    assert merged.kind is expected


@pytest.mark.parametrize("length", [1, 62, 63, 64, 253])
def test_payloads_stay_below_the_bound_and_lose_no_name(length: int) -> None:
    names = tuple(f"{number:04}".ljust(length, "x")[-length:] for number in range(1500))
    payloads = list(_payloads([desired(*names)], source="controller-abcdef"))
    assert max(map(len, payloads)) <= limits.NOTICE_BYTES_MAX
    found: Sequence[str] = [name for payload in payloads for name in json.loads(payload)["ids"]]
    assert tuple(found) == names
