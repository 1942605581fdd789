"""Certificates that the CA signed."""

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from controlplane.domain.identity import AgentCertificate
from controlplane.domain.ids import AgentId
from controlplane.store.mapping.identity import certificate_from_row, certificate_to_row
from controlplane.store.tables import agent_certificate as certificates
from controlplane.store.transaction import Transaction, batches


class SqlCertificateRepository:
    """The CertificateRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, certificate: AgentCertificate) -> None:
        await self._transaction.add(
            certificates, certificate_to_row(certificate), resource=f"certificate {certificate.serial}"
        )

    async def find(self, serial: str) -> AgentCertificate | None:
        row = await self._transaction.row(sa.select(certificates).where(certificates.c.serial == serial))
        return None if row is None else certificate_from_row(row)

    async def find_all(self, serials: Iterable[str]) -> Mapping[str, AgentCertificate]:
        found: dict[str, AgentCertificate] = {}
        for batch in batches(serials):
            statement = sa.select(certificates).where(certificates.c.serial.in_(batch))
            for certificate in await self._transaction.mapped(statement, certificate_from_row):
                found[certificate.serial] = certificate
        return found

    async def find_by_key(self, agent_id: AgentId, public_key_sha256: str) -> AgentCertificate | None:
        statement = (
            sa.select(certificates)
            .where(certificates.c.agent_id == agent_id, certificates.c.public_key_sha256 == public_key_sha256)
            .order_by(certificates.c.not_before.desc(), certificates.c.expire_time.desc(), certificates.c.serial.desc())
            .limit(1)
        )
        row = await self._transaction.row(statement)
        return None if row is None else certificate_from_row(row)
