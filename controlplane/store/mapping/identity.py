"""Tokens and certificates."""

from typing import Any

from controlplane.domain.identity import AgentCertificate, JoinToken, OperatorToken
from controlplane.domain.ids import AgentId, JoinTokenId
from controlplane.store.mapping.values import Row, text_map


def join_token_to_row(token: JoinToken) -> dict[str, Any]:
    return {
        "id": token.id,
        "uid": token.uid,
        "secret_sha256": token.secret_sha256,
        "create_time": token.create_time,
        "expire_time": token.expire_time,
        "uses": token.uses,
        "used": token.used,
        "labels": dict(token.labels),
        "revoked": token.revoked,
        "revision": token.revision,
    }


def join_token_from_row(row: Row) -> JoinToken:
    return JoinToken(
        id=JoinTokenId(row["id"]),
        uid=row["uid"],
        secret_sha256=row["secret_sha256"],
        create_time=row["create_time"],
        expire_time=row["expire_time"],
        uses=row["uses"],
        used=row["used"],
        labels=text_map(row["labels"]),
        revoked=row["revoked"],
        revision=row["revision"],
    )


def operator_token_to_row(token: OperatorToken) -> dict[str, Any]:
    return {
        "id": token.id,
        "secret_sha256": token.secret_sha256,
        "create_time": token.create_time,
        "description": token.description,
        "revoked": token.revoked,
    }


def operator_token_from_row(row: Row) -> OperatorToken:
    return OperatorToken(
        id=row["id"],
        secret_sha256=row["secret_sha256"],
        create_time=row["create_time"],
        description=row["description"],
        revoked=row["revoked"],
    )


def certificate_to_row(certificate: AgentCertificate) -> dict[str, Any]:
    return {
        "serial": certificate.serial,
        "agent_id": certificate.agent_id,
        "public_key_sha256": certificate.public_key_sha256,
        "not_before": certificate.not_before,
        "expire_time": certificate.expire_time,
    }


def certificate_from_row(row: Row) -> AgentCertificate:
    return AgentCertificate(
        serial=row["serial"],
        agent_id=AgentId(row["agent_id"]),
        public_key_sha256=row["public_key_sha256"],
        not_before=row["not_before"],
        expire_time=row["expire_time"],
    )
