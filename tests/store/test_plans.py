"""Questions that are asked often never walk through a whole table."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from controlplane.app.ports import AuditFilter, UnitOfWork
from controlplane.domain.ids import DeploymentId, SampleId
from controlplane.domain.lake import ResultFilter, ResultSpan
from controlplane.domain.sample import SampleReason
from controlplane.store import SqlStore
from tests.support.factories import NOW, SOLAR, ST_1, WELD, digest_of

Question = Callable[[UnitOfWork], Awaitable[object]]


@contextmanager
def recorded(store: SqlStore) -> Iterator[list[tuple[str, Any]]]:
    """The statements that the store executes within the block, but BEGIN."""
    statements: list[tuple[str, Any]] = []

    def record(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if not statement.startswith("BEGIN"):
            statements.append((statement, parameters))

    engine = store._engines.reader.sync_engine
    sa.event.listen(engine, "before_cursor_execute", record)
    yield statements
    sa.event.remove(engine, "before_cursor_execute", record)


async def plan_of(store: SqlStore, ask: Question) -> list[str]:
    """The steps by which SQLite answers everything that the question takes."""
    with recorded(store) as statements:
        async with store.read() as work:
            await ask(work)
    assert statements
    steps: list[str] = []
    async with store._engines.reader.connect() as connection:
        for statement, parameters in statements:
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps += [row[-1] for row in plan.all()]
    return steps


ONE_ROW_QUESTIONS: dict[str, Question] = {
    "is_assigned": lambda work: work.desired.is_assigned(ST_1, digest_of("weights")),
    "desired": lambda work: work.desired.find(ST_1),
    "agent": lambda work: work.agents.find(ST_1),
    "revoked": lambda work: work.agents.list_revoked(),
    "certificate": lambda work: work.certificates.find("01"),
    "certificate of a key": lambda work: work.certificates.find_by_key(ST_1, "ab"),
    "operator token": lambda work: work.tokens.find_operator_token("ab"),
    "version by digest": lambda work: work.models.find_version_by_digest(SOLAR, digest_of("weights")),
    "versions": lambda work: work.models.get_versions([(SOLAR, 1), (SOLAR, 2), (WELD, 1)]),
    "yanked versions": lambda work: work.models.list_yanked(),
    "pins of agents": lambda work: work.pins.list([ST_1]),
    "lease": lambda work: work.leases.find("rollouts"),
    "queued rollouts": lambda work: work.rollouts.list_queued(),
    "active rollouts": lambda work: work.rollouts.list_active(),
    "inferences": lambda work: work.evidence.count_inferences(SOLAR, 1, received_since=NOW),
    "windows": lambda work: work.evidence.list_windows(
        SOLAR, start_time=NOW, end_time=NOW, after=(NOW, ST_1, 1, 0), limit=5
    ),
    "batch": lambda work: work.evidence.has(ST_1, 1),
    "files of results by key": lambda work: work.result_index.known(["a"]),
    "request": lambda work: work.requests.find("r-1"),
}
PAGES: dict[str, Question] = {
    "rollouts": lambda work: work.rollouts.list(deployment_id=DeploymentId("d"), before="u", limit=5),
    "audit": lambda work: work.audit.list(AuditFilter(), after="u", limit=5),
    "audit of a resource": lambda work: work.audit.list(AuditFilter(resource="rollouts/r"), after="u", limit=5),
    "audit of a resource, oldest first": lambda work: work.audit.list(
        AuditFilter(resource="rollouts/r", action="wave."), after=None, limit=5, oldest_first=True
    ),
    "audit of an operator": lambda work: work.audit.list(AuditFilter(actor="operators/a"), after="u", limit=5),
    "results": lambda work: work.evidence.list_results(ResultFilter(), after=7, limit=5),
    "results of a model": lambda work: work.evidence.list_results(ResultFilter(model_id=SOLAR), after=None, limit=5),
    "results of a version": lambda work: work.evidence.list_results(
        ResultFilter(model_id=SOLAR, version=1), after=7, limit=5
    ),
    "newest results of an agent": lambda work: work.evidence.list_results(
        ResultFilter(agent_id=ST_1), after=7, limit=5, newest_first=True
    ),
    "results of a part": lambda work: work.evidence.list_results(ResultFilter(part_id="cell-7"), after=None, limit=5),
    "files of results": lambda work: work.result_index.list(ResultFilter(), after=7, beyond=None, limit=5),
    "newest files of results of a version": lambda work: work.result_index.list(
        ResultFilter(model_id=SOLAR, version=1), after=7, beyond=9, limit=5, newest_first=True
    ),
    "files of results of an agent": lambda work: work.result_index.list(
        ResultFilter(agent_id=ST_1), after=None, beyond=9, limit=5
    ),
    "files of results of a part": lambda work: work.result_index.list(
        ResultFilter(part_id="cell-7"), after=None, beyond=None, limit=5
    ),
    "files of results of a time": lambda work: work.result_index.list_span(
        ResultSpan(start_time=NOW, model_id=SOLAR), limit=5
    ),
    "files of results to merge": lambda work: work.result_index.list_unmerged(level=0, created_before=NOW, limit=5),
    "expired files of results": lambda work: work.result_index.list_expired(created_before=NOW, limit=5),
    "waste": lambda work: work.result_index.list_waste(before=NOW, limit=5),
    "samples of a model": lambda work: work.samples.list(
        model_id=SOLAR, agent_id=None, reason=SampleReason.RANDOM, before=(NOW, SampleId("s")), limit=5
    ),
}


@pytest.mark.parametrize("name", [*ONE_ROW_QUESTIONS, *PAGES])
async def test_the_answer_is_sought_in_an_index(sqlite_store: SqlStore, name: str) -> None:
    steps = await plan_of(sqlite_store, (ONE_ROW_QUESTIONS | PAGES)[name])
    assert not [step for step in steps if step.startswith("SCAN") and "INDEX" not in step], steps


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_is_read_in_its_order(sqlite_store: SqlStore, name: str) -> None:
    assert "USE TEMP B-TREE FOR ORDER BY" not in await plan_of(sqlite_store, PAGES[name])
