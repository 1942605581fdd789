"""`init`, and what else is done to a controller's folder while nobody need serve it."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from controlplane import limits
from controlplane.app import credentials
from controlplane.app.tokens import adopt_operator_token, create_operator_token
from controlplane.config import Address
from controlplane.domain.errors import FieldInvalidError, PreconditionError, Reason
from controlplane.folder import OperatorFile, check_initialised
from controlplane.identity import files
from controlplane.identity.authority import LocalAuthority, create_ca
from controlplane.store import migrate, open_store
from controlplane.store.engine import sqlite_path
from controlplane.system import SystemClock, SystemIds


def initialise(folder: Path, *, controller: Address, database_url: str, join: Path | None = None) -> tuple[str, ...]:
    """Make what is missing of a controller's folder; return a line for each thing made, nothing when all was there.

    Each step leaves something whole behind and is skipped when repeated, so an interrupted run is repeated. The
    token is stored in the database only after it is in operator.toml: no token is lost. With `join`, the folder of a
    controller that is there already (or a copy of it), the new one is its replica: of the same CA, with the same first
    operator. Raises FieldInvalidError, PreconditionError and StorageError.
    """
    made: list[str] = []
    if join is not None:
        _check_can_join(folder, join, database_url=database_url)
    files.make_folder(folder)
    for name in ("pki", "artifacts", "uploads"):
        files.make_folder(folder / name)
    if join is not None and _copy_ca(join / "pki", folder / "pki"):
        made.append(f"took over the CA of {join}")
    if create_ca(folder / "pki", now=SystemClock().now()):
        made.append(f"made the CA: {folder / 'pki'}")
    if ensure_server_certificate(folder / "pki", hosts=(controller.host,)):
        made.append("issued the server's certificate")
    if _is_new(database_url):
        made.append("made the database")
    migrate(database_url)
    operator_file = folder / "operator.toml"
    if not operator_file.exists():
        shared = None if join is None else OperatorFile.read(join / "operator.toml")
        token = credentials.encode_operator_token(SystemIds().secret()) if shared is None else shared.token
        ca_certificate = (folder / "pki" / "ca.pem").read_text()
        OperatorFile(controller=controller, token=token, ca_certificate=ca_certificate).write(operator_file)
        made.append(f"wrote the first operator's token: {operator_file}")
    asyncio.run(_adopt(operator_file, database_url))
    return tuple(made)


def ensure_server_certificate(pki_dir: Path, *, hosts: Iterable[str]) -> bool:
    """Issue the server's certificate where it is missing, near its end or without one of the hosts."""
    authority = LocalAuthority(pki_dir, agent_certificate_ttl=limits.AGENT_CERTIFICATE_TTL_DEFAULT)
    return authority.ensure_server_certificate(hosts, now=SystemClock().now())


def create_operator(folder: Path, *, name: str = "", description: str, database_url: str) -> str:
    """Store another operator and return the text of its token. Without a name it gets one by chance."""
    check_initialised(folder)
    migrate(database_url)

    async def create() -> str:
        store = open_store(database_url)
        try:
            return await create_operator_token(
                store=store, clock=SystemClock(), ids=SystemIds(), description=description, operator_id=name
            )
        finally:
            await store.close()

    return asyncio.run(create())


def _is_new(database_url: str) -> bool:
    path = sqlite_path(database_url)
    return path is not None and not path.exists()


def _check_can_join(folder: Path, join: Path, *, database_url: str) -> None:
    check_initialised(join, field="join")
    if sqlite_path(database_url) is not None:
        raise FieldInvalidError(
            "replicas share one PostgreSQL, and this is SQLite",
            field="database_url",
            remedy="name the database of the controller that is joined: --database-url postgresql://...",
        )
    own = folder / "pki" / "ca.pem"
    if own.exists() and own.read_bytes() != (join / "pki" / "ca.pem").read_bytes():
        raise PreconditionError(
            f"{folder} has a CA of its own, which the agents of {join} do not trust",
            field="dir",
            remedy="name a folder that does not exist yet",
            reason=Reason.RESOURCE_EXISTS,
        )


def _copy_ca(source: Path, target: Path) -> bool:
    """Copy the CA where there is none; return whether it was copied. The certificate comes last: it says that the CA
    is there."""
    if (target / "ca.pem").exists():
        return False
    try:
        key, certificate = (source / "ca.key").read_bytes(), (source / "ca.pem").read_bytes()
    except OSError as error:
        raise FieldInvalidError(
            f"cannot read {error.filename}: {error.strerror}",
            field="join",
            remedy="name the folder of a controller, or a copy of its pki folder with ca.pem and ca.key",
        ) from error
    files.write_secret(target / "ca.key", key)
    files.write_public(target / "ca.pem", certificate)
    return True


async def _adopt(operator_file: Path, database_url: str) -> None:
    stored = OperatorFile.read(operator_file)
    assert stored is not None, "it was written above"
    store = open_store(database_url)
    try:
        await adopt_operator_token(
            stored.token, store=store, clock=SystemClock(), ids=SystemIds(), description="operator.toml"
        )
    finally:
        await store.close()
