"""Deployments."""

from collections.abc import Sequence

import sqlalchemy as sa

from controlplane.domain.condition import Condition
from controlplane.domain.deployment import Deployment
from controlplane.domain.ids import DeploymentId
from controlplane.store.mapping.condition import condition_to_json
from controlplane.store.mapping.deployment import deployment_from_row, deployment_to_row
from controlplane.store.tables import deployment as deployments
from controlplane.store.transaction import Transaction, found, stale


class SqlDeploymentRepository:
    """The DeploymentRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, deployment: Deployment) -> None:
        await self._transaction.add(
            deployments,
            deployment_to_row(deployment),
            resource=f"deployments/{deployment.id}",
            field="deployment_id",
        )

    async def get(self, deployment_id: DeploymentId) -> Deployment:
        row = await self._transaction.row(sa.select(deployments).where(deployments.c.id == deployment_id))
        return deployment_from_row(found(row, resource=f"deployments/{deployment_id}"))

    async def save(self, deployment: Deployment) -> Deployment:
        row = deployment_to_row(deployment)
        # They belong to `set_conditions`, which may have been quicker without a change of revision.
        del row["conditions"]
        await self._transaction.save(deployments, row, resource=f"deployments/{deployment.id}")
        return await self.get(deployment.id)

    async def delete(self, deployment: Deployment) -> None:
        statement = sa.delete(deployments).where(
            deployments.c.id == deployment.id, deployments.c.revision == deployment.revision
        )
        if await self._transaction.change(statement) != 1:
            raise stale(f"deployments/{deployment.id}")

    async def list(self, *, after: DeploymentId | None, limit: int) -> Sequence[Deployment]:
        statement = sa.select(deployments).order_by(deployments.c.id).limit(limit)
        if after is not None:
            statement = statement.where(deployments.c.id > after)
        return [deployment_from_row(row) for row in await self._transaction.rows(statement)]

    async def list_all(self) -> Sequence[Deployment]:
        rows = await self._transaction.rows(sa.select(deployments).order_by(deployments.c.id))
        return [deployment_from_row(row) for row in rows]

    async def set_conditions(self, deployment_id: DeploymentId, conditions: Sequence[Condition]) -> None:
        statement = sa.update(deployments).where(deployments.c.id == deployment_id)
        values = statement.values(conditions=[condition_to_json(condition) for condition in conditions])
        if await self._transaction.change(values) != 1:
            found(None, resource=f"deployments/{deployment_id}")
