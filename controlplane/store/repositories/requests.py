"""Outcomes of creates by request id."""

from datetime import datetime

import sqlalchemy as sa

from controlplane.store.tables import create_request
from controlplane.store.transaction import Transaction


class SqlRequestRepository:
    """The RequestRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def find(self, request_id: str) -> tuple[str, str] | None:
        row = await self._transaction.row(sa.select(create_request).where(create_request.c.id == request_id))
        return None if row is None else (row["fingerprint"], row["resource"])

    async def add(self, request_id: str, *, fingerprint: str, resource: str, create_time: datetime) -> None:
        row = {"id": request_id, "fingerprint": fingerprint, "resource": resource, "create_time": create_time}
        await self._transaction.add(create_request, row, resource=f"request {request_id}")
