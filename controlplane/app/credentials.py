"""Texts of tokens, and what is kept of their secrets.

A join token is `lsj1.` and base64url of `{"id", "secret", "ca"}`: who holds it can enrol and knows which CA to
trust. An operator token is `lso1.` and its secret. The store keeps the sha256 of a secret, never the secret:
256 random bits need no slow hash.
"""

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass

from controlplane.domain.errors import CredentialError, Reason
from controlplane.domain.ids import JoinTokenId

_JOIN_PREFIX = "lsj1."
_OPERATOR_PREFIX = "lso1."


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTokenText:
    """What a join token's text says."""

    id: JoinTokenId
    secret: str
    ca_certificate_der: bytes


def encode_join_token(token: JoinTokenText) -> str:
    """Return the text that an operator hands to whoever sets up a box."""
    content = {
        "id": token.id,
        "secret": token.secret,
        "ca": base64.b64encode(token.ca_certificate_der).decode(),
    }
    return _JOIN_PREFIX + base64.urlsafe_b64encode(json.dumps(content, separators=(",", ":")).encode()).decode()


def parse_join_token(text: str) -> JoinTokenText:
    """Return what the text says; raise CredentialError (JOIN_TOKEN_INVALID) for any other text."""
    try:
        if not text.startswith(_JOIN_PREFIX):
            raise ValueError("prefix")
        body = text.removeprefix(_JOIN_PREFIX)
        content = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        fields = (content["id"], content["secret"], content["ca"])
        if not all(isinstance(field, str) for field in fields):
            raise ValueError("types")
        # What cannot be encoded, or looked up, was never a part of a token.
        if any("\0" in field or not field.isascii() for field in fields):
            raise ValueError("characters")
        ca = base64.b64decode(content["ca"], validate=True)
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise join_token_invalid() from error
    return JoinTokenText(id=JoinTokenId(content["id"]), secret=content["secret"], ca_certificate_der=ca)


def join_token_invalid() -> CredentialError:
    """The one refusal for every wrong join token: it does not say what was wrong with it."""
    return CredentialError(
        "not a join token of this controller",
        field="token",
        remedy="create one with `lineside tokens create`",
        reason=Reason.JOIN_TOKEN_INVALID,
    )


def encode_operator_token(secret: str) -> str:
    """Return the text that an operator's configuration holds."""
    return _OPERATOR_PREFIX + secret


def parse_operator_token(text: str) -> str:
    """Return the secret; raise CredentialError (OPERATOR_TOKEN_INVALID) for any other text."""
    if not text.startswith(_OPERATOR_PREFIX) or text == _OPERATOR_PREFIX:
        raise operator_token_invalid()
    return text.removeprefix(_OPERATOR_PREFIX)


def operator_token_invalid() -> CredentialError:
    """The one refusal for every wrong or missing operator token."""
    return CredentialError(
        "no valid operator token",
        field="authorization",
        remedy="send `authorization: Bearer <token>` with a token made by `lineside-controlplane operators create`",
        reason=Reason.OPERATOR_TOKEN_INVALID,
    )


def hash_secret(secret: str) -> str:
    """Return what the store keeps of a secret: sha256 in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def secrets_match(secret: str, secret_sha256: str) -> bool:
    """Compare in a time that does not depend on where they differ."""
    return hmac.compare_digest(hash_secret(secret), secret_sha256)
