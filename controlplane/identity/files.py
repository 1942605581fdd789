"""Files that are there whole or not at all."""

import os
import secrets
from pathlib import Path

from controlplane.domain.errors import StorageError


def write_secret(path: Path, content: bytes) -> None:
    """Put `content` at `path`, readable by the owner alone, durable on return. A reader, and a restart after a
    crash at any moment, sees the old content or the new, never a part."""
    _write(path, content, mode=0o600)


def write_public(path: Path, content: bytes) -> None:
    """As `write_secret`, readable by everybody."""
    _write(path, content, mode=0o644)


def make_folder(path: Path) -> None:
    """Make the folder, for the owner alone, if it is not there."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(path, error) from error


def _write(path: Path, content: bytes, *, mode: int) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise _refusal(path, error) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusal(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot write {path}: {error.strerror or error}",
        remedy="free some space or make the folder writable, and run the command again",
    )
