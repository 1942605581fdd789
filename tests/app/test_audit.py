"""The log of decisions: pages, and what is asked for."""

import pytest

from controlplane.app.audit import Audit, write_down
from controlplane.app.ports import AuditFilter
from controlplane.domain.audit import Happening, rule
from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import CountingIds, VirtualClock


async def make_log(count: int) -> tuple[MemoryStore, Audit]:
    """Decisions a second apart, by turns of a person and of a rule."""
    store, clock, ids = MemoryStore(), VirtualClock(), CountingIds()
    for number in range(count):
        happening = Happening(
            actor="operators/anna" if number % 2 == 0 else rule("gate"),
            action="rollout.pause" if number % 2 == 0 else "wave.pass",
            resource=f"rollouts/r{number}",
            related=("deployments/line-3",),
        )
        async with store.write() as work:
            await write_down(work, [happening], clock=clock, ids=ids)
        clock.advance(1)
    return store, Audit(store=store)


async def test_pages_follow_one_another_newest_first_and_oldest_first() -> None:
    _, audit = await make_log(5)
    for oldest_first, expected in ((False, [4, 3, 2, 1, 0]), (True, [0, 1, 2, 3, 4])):
        seen: list[str] = []
        token = ""
        while True:
            page = await audit.list(AuditFilter(), page_size=2, page_token=token, oldest_first=oldest_first)
            seen.extend(event.happening.resource for event in page.items)
            token = page.next_token
            if not token:
                break
        assert seen == [f"rollouts/r{number}" for number in expected]


async def test_what_is_asked_for_narrows_the_list() -> None:
    _, audit = await make_log(4)
    by_rule = await audit.list(AuditFilter(actor="rules/gate"))
    assert [event.happening.action for event in by_rule.items] == ["wave.pass", "wave.pass"]
    assert len((await audit.list(AuditFilter(action="rollout."))).items) == 2
    assert len((await audit.list(AuditFilter(action="rollout"))).items) == 0
    assert len((await audit.list(AuditFilter(resource="deployments/line-3"))).items) == 4
    assert len((await audit.list(AuditFilter(resource="rollouts/r1"))).items) == 1


async def test_what_happened_in_a_transaction_that_failed_is_not_in_the_log() -> None:
    store, audit = await make_log(1)
    later = CountingIds()
    later.uid()
    happening = Happening(actor="operators/anna", action="rollout.abort", resource="rollouts/r0")

    async def fail() -> None:
        async with store.write() as work:
            await write_down(work, [happening], clock=VirtualClock(), ids=later)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert len((await audit.list(AuditFilter())).items) == 1
