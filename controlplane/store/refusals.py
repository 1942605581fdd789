"""What the database said, in the domain's words.

A fault that no caller can act on (a statement of ours is wrong) is not translated: it surfaces as it is.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from controlplane.domain.errors import (
    DomainError,
    FieldInvalidError,
    Reason,
    ResourceExistsError,
    ResourceNotFoundError,
    StaleWriteError,
    StorageError,
)

_SQLITE_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_NOMEM,
    }
)
_POSTGRESQL_DISK_FULL = "53100"
_POSTGRESQL_FOREIGN_KEY = "23503"
_POSTGRESQL_READ_ONLY = "25006"
_POSTGRESQL_LOCK_TIMEOUT = "55P03"
_POSTGRESQL_SERIALIZATION_CLASS = "40"
_POSTGRESQL_UNAVAILABLE_CLASSES = frozenset({"08", "28", "53", "57", "58", "F0", "XX"})
"""Connection, authorisation, resources, operator intervention, system, configuration file, internal error."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise what the database refuses within the block as a DomainError."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        refusal = translate(error)
        if refusal is None:
            raise
        raise refusal from error
    except sa.exc.TimeoutError as error:
        raise StorageError("every connection to the database is in use", remedy="try again") from error


def translate(error: sa.exc.DBAPIError) -> DomainError | None:
    """Return the refusal for a database error, or None where it is a fault of ours."""
    if isinstance(error, sa.exc.DataError):
        return FieldInvalidError(
            f"the database cannot hold a value: {error.orig}", remedy="use numbers of 64 bits and text without NUL"
        )
    if isinstance(error.orig, sqlite3.Error):
        return _translate_sqlite(error, error.orig)
    return _translate_postgresql(error)


def _translate_sqlite(error: sa.exc.DBAPIError, cause: sqlite3.Error) -> DomainError | None:
    code = getattr(cause, "sqlite_errorcode", None)
    if isinstance(error, sa.exc.IntegrityError):
        return _translate_integrity(foreign_key=code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY, cause=cause)
    match None if code is None else code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return _full(cause)
        case primary if primary in _SQLITE_UNAVAILABLE:
            return _unavailable(cause)
        case _:
            return None


def _translate_postgresql(error: sa.exc.DBAPIError) -> DomainError | None:
    cause = error.orig
    state: str | None = getattr(cause, "sqlstate", None)
    if isinstance(error, sa.exc.IntegrityError):
        return _translate_integrity(foreign_key=state == _POSTGRESQL_FOREIGN_KEY, cause=cause)
    if state is None:
        # The server was not reached, or went away: it said nothing.
        return _unavailable(cause) if isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) else None
    if state == _POSTGRESQL_DISK_FULL:
        return _full(cause)
    if state[:2] == _POSTGRESQL_SERIALIZATION_CLASS:
        return StaleWriteError("another writer changed what this one read", remedy="read again, then repeat")
    if state in {_POSTGRESQL_READ_ONLY, _POSTGRESQL_LOCK_TIMEOUT} or state[:2] in _POSTGRESQL_UNAVAILABLE_CLASSES:
        return _unavailable(cause)
    return None


def _translate_integrity(*, foreign_key: bool, cause: object) -> DomainError:
    if foreign_key:
        return ResourceNotFoundError(f"it refers to something that does not exist: {cause}")
    return ResourceExistsError(f"it conflicts with what is stored: {cause}")


def _full(cause: object) -> StorageError:
    return StorageError(
        f"the database's disk is full: {cause}", remedy="free space, then try again", reason=Reason.STORAGE_FULL
    )


def _unavailable(cause: object) -> StorageError:
    text = str(cause).strip().splitlines()
    return StorageError(
        f"the database cannot be used: {text[0] if text else type(cause).__name__}",
        remedy="see to the database, then try again",
    )
