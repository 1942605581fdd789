"""Notices between the controllers of one PostgreSQL, by LISTEN and NOTIFY.

What one controller announces after its commit reaches every other one. A notice that is lost with a connection costs
no more than time: after each reconnect everything is noticed once. With SQLite there is one controller and none of
this.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

import psycopg
import structlog

from controlplane import limits, observability
from controlplane.app.notices import Notice, NoticeKind
from controlplane.store.engine import parse_database_url

_CHANNEL = "lineside_notices"

log = structlog.get_logger(__name__)


class PostgresNotices:
    """Carries notices over two connections of its own: one listens, one tells.

    `hear` is called for each notice of another controller. Notices that wait to be told are merged: at most one entry
    an agent and a rollout.
    """

    def __init__(self, database_url: str, *, source: str, hear: Callable[[Notice], None]) -> None:
        url = parse_database_url(database_url)
        self._conninfo = url.render_as_string(hide_password=False)
        self._source = source
        self._hear = hear
        self._waiting: dict[Notice, None] = {}
        self._any = asyncio.Event()

    def tell(self, notice: Notice) -> None:
        """Have the notice told to the others; returns at once."""
        if notice.kind is not NoticeKind.ALL and not notice.ids:
            return
        self._waiting[notice] = None
        self._any.set()

    async def run(self) -> None:
        """Listen and tell until cancelled, over as many connections as it takes."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep(self._listen), name="notices_listen")
            tasks.create_task(self._keep(self._tell_others), name="notices_tell")

    async def _keep(self, talk: Callable[[psycopg.AsyncConnection], AsyncIterator[None]]) -> None:
        """Talk over one connection after the other. Whatever `talk` yields at shows that the connection is good."""
        delay_seconds = limits.NOTICE_RETRY_SECONDS_MIN
        while True:
            try:
                async with await self._connect() as connection:
                    async for _ in talk(connection):
                        delay_seconds = limits.NOTICE_RETRY_SECONDS_MIN
            except (psycopg.Error, OSError, TimeoutError) as error:
                log.warning(observability.NOTICES_DISCONNECTED, cause=str(error), retry_seconds=delay_seconds)
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(delay_seconds * 2, limits.NOTICE_RETRY_SECONDS_MAX)

    async def _connect(self) -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, connect_timeout=limits.DATABASE_CONNECT_SECONDS
        )

    async def _listen(self, connection: psycopg.AsyncConnection) -> AsyncIterator[None]:
        await connection.execute(f"LISTEN {_CHANNEL}".encode())
        log.info(observability.NOTICES_CONNECTED)
        # What was told while nobody listened is not known.
        self._hear(Notice(NoticeKind.ALL))
        while True:
            async for notification in connection.notifies(timeout=limits.NOTICE_CHECK_SECONDS):
                self._take(notification.payload)
            await _check(connection)
            yield

    async def _tell_others(self, connection: psycopg.AsyncConnection) -> AsyncIterator[None]:
        while True:
            try:
                async with asyncio.timeout(limits.NOTICE_CHECK_SECONDS):
                    await self._any.wait()
            except TimeoutError:
                await _check(connection)
                yield
                continue
            self._any.clear()
            waiting, self._waiting = self._waiting, {}
            try:
                for payload in _payloads(_merge(waiting), source=self._source):
                    async with asyncio.timeout(limits.DATABASE_CONNECT_SECONDS):
                        await connection.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, payload))
            except BaseException:
                # They are told again over the next connection; a notice twice costs one look.
                self._waiting = {**waiting, **self._waiting}
                self._any.set()
                raise
            yield

    def _take(self, payload: str) -> None:
        content = json.loads(payload)
        if content["source"] != self._source:
            self._hear(Notice(NoticeKind(content["kind"]), tuple(content["ids"])))


def open_notices(database_url: str, *, source: str, hear: Callable[[Notice], None]) -> PostgresNotices | None:
    """The notices of a PostgreSQL; None for SQLite. `source` names this process to the others."""
    if parse_database_url(database_url).drivername != "postgresql":
        return None
    return PostgresNotices(database_url, source=source, hear=hear)


def _merge(notices: Iterable[Notice]) -> Iterator[Notice]:
    """As few notices as say the same."""
    merged: dict[NoticeKind, dict[str, None]] = {}
    for notice in notices:
        merged.setdefault(notice.kind, {}).update(dict.fromkeys(notice.ids))
    for kind, ids in merged.items():
        too_many = len(ids) > limits.NOTICE_IDS_MAX and kind is not NoticeKind.REVOKED
        yield Notice(NoticeKind.ALL) if too_many else Notice(kind, tuple(ids))


def _payloads(notices: Iterable[Notice], *, source: str) -> Iterator[str]:
    """Texts of at most NOTICE_BYTES_MAX. Ids are ASCII."""
    for notice in notices:
        empty = len(_payload(Notice(notice.kind), source))
        chunk: list[str] = []
        size = empty
        for name in notice.ids:
            # With its quotes, and the comma and space before it.
            needed = len(json.dumps(name)) + 2
            if chunk and size + needed > limits.NOTICE_BYTES_MAX:
                yield _payload(Notice(notice.kind, tuple(chunk)), source)
                chunk, size = [], empty
            chunk.append(name)
            size += needed
        yield _payload(Notice(notice.kind, tuple(chunk)), source)


def _payload(notice: Notice, source: str) -> str:
    return json.dumps({"source": source, "kind": notice.kind.value, "ids": notice.ids})


async def _check(connection: psycopg.AsyncConnection) -> None:
    """Raise where the connection is dead without anybody having said so."""
    async with asyncio.timeout(limits.DATABASE_CONNECT_SECONDS):
        await connection.execute("SELECT 1")
