"""How failures of disks and object stores are told."""

import errno
import os

import pytest
from obstore.exceptions import GenericError

from controlplane.artifacts.failures import storage_error, told_as_storage_error
from controlplane.domain.errors import Reason, StorageError


@pytest.mark.parametrize(
    ("error", "reason", "told"),
    [
        (OSError(errno.ENOSPC, "no"), Reason.STORAGE_FULL, "is full"),
        (OSError(errno.EDQUOT, "no"), Reason.STORAGE_FULL, "is full"),
        (OSError(errno.EROFS, "no"), Reason.STORAGE_UNAVAILABLE, "cannot be written (Read-only file system)"),
        (OSError(errno.EACCES, "no"), Reason.STORAGE_UNAVAILABLE, "cannot be written"),
        (GenericError("Generic error: cannot copy: No space left (os error 28)\n\nDebug"), Reason.STORAGE_FULL, "full"),
        (
            GenericError("Generic S3 error: no route\n\nDebug"),
            Reason.STORAGE_UNAVAILABLE,
            "Generic S3 error: no route)",
        ),
    ],
)
def test_each_failure_names_what_failed_and_the_remedy(error: Exception, reason: Reason, told: str) -> None:
    refusal = storage_error(error, what="the artifact store x")
    assert refusal.reason is reason
    assert refusal.message.startswith("the artifact store x ")
    assert told in refusal.message
    assert refusal.remedy


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), told_as_storage_error("x"):
        raise ZeroDivisionError


def test_the_cause_is_kept() -> None:
    with pytest.raises(StorageError) as refusal, told_as_storage_error("x"):
        os.stat("/no/such/file")
    assert isinstance(refusal.value.__cause__, FileNotFoundError)
