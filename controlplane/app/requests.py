"""Idempotent creates (AIP-155): a request id is answered with its first outcome.

A use case asks `find_outcome` first and calls `keep_outcome` last, both within the write transaction
that creates the resource: so either both are stored or neither is.
"""

import hashlib
import json
import uuid
from datetime import datetime

from controlplane.app.ports import UnitOfWork
from controlplane.domain.errors import FieldInvalidError, PreconditionError, Reason


def fingerprint(kind: str, *parts: object) -> str:
    """Return a digest of a request: equal requests of a kind have equal ones. `parts` are plain values
    or frozen dataclasses, whose `repr` says everything."""
    text = json.dumps([kind, *(part if isinstance(part, str | int | bool) else repr(part) for part in parts)])
    return hashlib.sha256(text.encode()).hexdigest()


async def find_outcome(uow: UnitOfWork, request_id: str, *, print_of_request: str) -> str | None:
    """Return the resource that this request made before, None when it is new or has no id.

    Raises FieldInvalidError when the id is no UUID, PreconditionError (REQUEST_ID_REUSED) when it was
    used for another request.
    """
    if not request_id:
        return None
    _check(request_id)
    found = await uow.requests.find(request_id)
    if found is None:
        return None
    stored, resource = found
    if stored != print_of_request:
        raise PreconditionError(
            f"{request_id} was used for another request",
            field="request_id",
            remedy="draw a new UUID for each new request",
            reason=Reason.REQUEST_ID_REUSED,
        )
    return resource


async def keep_outcome(
    uow: UnitOfWork, request_id: str, *, print_of_request: str, resource: str, now: datetime
) -> None:
    """Store the outcome; nothing without an id."""
    if request_id:
        await uow.requests.add(request_id, fingerprint=print_of_request, resource=resource, create_time=now)


def _check(request_id: str) -> None:
    try:
        uuid.UUID(request_id)
    except ValueError as error:
        raise FieldInvalidError(
            f"{request_id!r} is not a UUID", field="request_id", remedy="draw a random UUID, or leave it empty"
        ) from error
