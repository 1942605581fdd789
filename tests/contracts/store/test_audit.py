"""What AuditRepository promises."""

import pytest

from controlplane.app.ports import AuditFilter, Store
from controlplane.domain.audit import AuditEvent, Happening
from tests.support.factories import after_seconds


def make_event(number: int, **values: object) -> AuditEvent:
    happening = {"actor": "rules/gate", "action": "wave.admit", "resource": "rollouts/r-1", **values}
    return AuditEvent(
        id=f"uid-{number}",
        create_time=after_seconds(number),
        happening=Happening(**happening),  # type: ignore[arg-type]
    )


EVENTS = [
    make_event(1, actor="operators/anna", action="rollout.start", related=("deployments/d-1", "models/solar")),
    make_event(2, reason="GATE_PASSED", message="wave 1 passed", evidence={"checks": [{"low": 0.5}], "n": 3}),
    make_event(3, resource="rollouts/r-2", related=("rollouts/r-1", "rollouts/r-2")),
    make_event(4, actor="operators/anna", action="rollouts.odd", resource="rollouts/r-3"),
    make_event(5, actor="operators/ben", action="rollout.abort", resource="rollouts/r-3"),
]


@pytest.fixture
async def log(store: Store) -> Store:
    async with store.write() as work:
        await work.audit.add([])
        await work.audit.add(EVENTS[:3])
        await work.audit.add(EVENTS[3:])
    return store


async def listed(log: Store, wanted: AuditFilter, **options: object) -> list[int]:
    async with log.read() as work:
        found = await work.audit.list(wanted, **{"after": None, "limit": 10, **options})  # type: ignore[arg-type]
    return [EVENTS.index(event) + 1 for event in found]


async def test_events_are_kept_whole_and_listed_newest_first(log: Store) -> None:
    assert await listed(log, AuditFilter()) == [5, 4, 3, 2, 1]


async def test_events_are_paged_both_ways(log: Store) -> None:
    assert await listed(log, AuditFilter(), after="uid-4", limit=2) == [3, 2]
    assert await listed(log, AuditFilter(), after="uid-2", limit=2, oldest_first=True) == [3, 4]
    of_one = AuditFilter(resource="rollouts/r-1")
    assert await listed(log, of_one, after="uid-3", limit=1) == [2]
    assert await listed(log, of_one, after="uid-1", limit=1, oldest_first=True) == [2]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (AuditFilter(resource="rollouts/r-1"), [3, 2, 1]),
        (AuditFilter(resource="models/solar"), [1]),
        (AuditFilter(resource="rollouts/r"), []),
        (AuditFilter(actor="operators/anna"), [4, 1]),
        (AuditFilter(action="wave.admit"), [3, 2]),
        (AuditFilter(action="rollout."), [5, 1]),
        (AuditFilter(action="rollout"), []),
        (AuditFilter(start_time=after_seconds(2), end_time=after_seconds(4)), [3, 2]),
        (AuditFilter(resource="rollouts/r-3", actor="operators/anna", action="rollouts."), [4]),
        (AuditFilter(resource="rollouts/r-1", start_time=after_seconds(3)), [3]),
    ],
)
async def test_events_are_found_by_what_they_say(log: Store, wanted: AuditFilter, found: list[int]) -> None:
    assert await listed(log, wanted) == found
    assert await listed(log, wanted, oldest_first=True) == found[::-1]


async def test_an_event_of_a_block_that_raises_is_not_kept(log: Store) -> None:
    async def write_and_fail() -> None:
        async with log.write() as work:
            await work.audit.add([make_event(6)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_and_fail()
    assert await listed(log, AuditFilter(), limit=1) == [5]
