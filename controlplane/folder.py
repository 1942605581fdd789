"""The controller's folder: how it is made, what it remembers, and that one `serve` has it at a time."""

import fcntl
import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from controlplane.config import Address
from controlplane.domain.errors import FieldInvalidError, PreconditionError, Reason, StorageError
from controlplane.identity import files


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFile:
    """What operator.toml says: how the first operator reaches this controller."""

    controller: Address
    token: str
    ca_certificate: str

    @classmethod
    def read(cls, path: Path) -> "OperatorFile | None":
        """Return what the file says, None when there is no file; raise StorageError when it cannot be read."""
        try:
            content = tomllib.loads(path.read_text())
            return cls(
                controller=Address.parse(content["controller"], field="controller"),
                token=content["token"],
                ca_certificate=content["ca_certificate"],
            )
        except FileNotFoundError:
            return None
        except (OSError, KeyError, ValueError, FieldInvalidError) as error:
            raise StorageError(
                f"cannot read {path}: {error}", remedy="remove the file and run `lineside-controlplane init`"
            ) from error

    def write(self, path: Path) -> None:
        """Put the file in place, for its owner alone."""
        text = (
            "# How an operator reaches this controller: lineside --config THIS_FILE ...\n"
            f"controller = {json.dumps(str(self.controller))}\n"
            f"token = {json.dumps(self.token)}\n"
            f'ca_certificate = """\n{self.ca_certificate.strip()}\n"""\n'
        )
        files.write_secret(path, text.encode())


def reachable(stored: Address, listening: Address) -> Address:
    """Return the address that operators should dial: the stored host stays, since it may be a public name, unless
    it is this machine's own and the controller listens elsewhere; the port is the one that is listened on."""
    if listening.is_wildcard or listening.host == stored.host:
        return stored.with_port(listening.port)
    if stored.host in {"127.0.0.1", "::1", "localhost"}:
        return listening
    return stored.with_port(listening.port)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep the folder for this process; raise PreconditionError when another one has it. However the process
    ends, the operating system lets go of it."""
    path = folder / "serve.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", remedy="make the folder writable") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PreconditionError(
                f"{folder} is served by another process",
                field="dir",
                remedy="stop that one first, or serve another folder",
                reason=Reason.RESOURCE_EXISTS,
            ) from error
        yield
    finally:
        os.close(descriptor)


def take_over(folder: Path, *, name: str) -> str | None:
    """Note that the process `name` serves the folder from now on; return the one before, which is dead since this one
    holds the folder. Raises StorageError."""
    path = folder / "served-by"
    try:
        before = path.read_text().strip() if path.exists() else None
        files.write_secret(path, name.encode())
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", remedy="make the folder writable") from error
    return before or None


def clear_workspace(folder: Path) -> None:
    """Make the folder, empty and for its owner alone; what a killed process left in it is nobody's. Raises
    StorageError."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
        files.make_folder(folder)
    except OSError as error:
        raise StorageError(f"cannot clear {folder}: {error.strerror}", remedy="make the folder writable") from error


def check_initialised(folder: Path, *, field: str = "dir") -> None:
    """Raise PreconditionError unless `init` has made the folder."""
    if not (folder / "pki" / "ca.pem").exists():
        raise PreconditionError(
            f"{folder} is no controller's folder",
            field=field,
            remedy=f"run `lineside-controlplane init --dir {folder}` first",
            reason=Reason.RESOURCE_NOT_FOUND,
        )
