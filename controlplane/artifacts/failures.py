"""How a failing disk or object store is told: a StorageError that names what failed and the remedy."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError

from controlplane.domain.errors import Reason, StorageError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def storage_error(error: Exception, *, what: str) -> StorageError:
    """Return the refusal for a failure of `what` ("the artifact store file:///x")."""
    code = _errno(error)
    cause = os.strerror(code) if code else str(error).splitlines()[0]
    if code in _FULL:
        return StorageError(
            f"{what} is full ({cause})",
            remedy="free space or enlarge it and try again: nothing that was stored is lost",
            reason=Reason.STORAGE_FULL,
        )
    if code in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return StorageError(
            f"{what} cannot be written ({cause})",
            remedy="make it writable for the user of the controller and try again",
            reason=Reason.STORAGE_UNAVAILABLE,
        )
    return StorageError(
        f"{what} failed ({cause})",
        remedy="see that it is in reach and healthy, then try again",
        reason=Reason.STORAGE_UNAVAILABLE,
    )


@contextmanager
def told_as_storage_error(what: str) -> Iterator[None]:
    """Raise failures of the operating system or of obstore within the block as StorageError."""
    try:
        yield
    except (OSError, BaseError) as error:
        raise storage_error(error, what=what) from error


def _errno(error: Exception) -> int:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    told = _OS_ERROR.search(str(error))
    return int(told.group(1)) if told else 0
