"""`init`, and what else is done to a controller's folder while nobody need serve it."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from controlplane import limits
from controlplane.app import credentials
from controlplane.app.tokens import adopt_operator_token, create_operator_token
from controlplane.config import Address
from controlplane.folder import OperatorFile, check_initialised
from controlplane.identity import files
from controlplane.identity.authority import LocalAuthority, create_ca
from controlplane.store import migrate, open_store
from controlplane.store.engine import sqlite_path
from controlplane.system import SystemClock, SystemIds


def initialise(folder: Path, *, controller: Address, database_url: str) -> tuple[str, ...]:
    """Make what is missing of a controller's folder; return a line for each thing made, nothing when all was there.

    Each step leaves something whole behind and is skipped when repeated, so an interrupted run is repeated. The
    token is stored in the database only after it is in operator.toml: no token is lost.
    """
    made: list[str] = []
    files.make_folder(folder)
    for name in ("pki", "artifacts", "uploads"):
        files.make_folder(folder / name)
    if create_ca(folder / "pki", now=SystemClock().now()):
        made.append(f"made the CA: {folder / 'pki'}")
    if ensure_server_certificate(folder / "pki", hosts=(controller.host,)):
        made.append("issued the server's certificate")
    if _is_new(database_url):
        made.append("made the database")
    migrate(database_url)
    operator_file = folder / "operator.toml"
    if not operator_file.exists():
        _write_operator_file(operator_file, controller=controller, ca_file=folder / "pki" / "ca.pem")
        made.append(f"wrote the first operator's token: {operator_file}")
    asyncio.run(_adopt(operator_file, database_url))
    return tuple(made)


def ensure_server_certificate(pki_dir: Path, *, hosts: Iterable[str]) -> bool:
    """Issue the server's certificate where it is missing, near its end or without one of the hosts."""
    authority = LocalAuthority(pki_dir, agent_certificate_ttl=limits.AGENT_CERTIFICATE_TTL_DEFAULT)
    return authority.ensure_server_certificate(hosts, now=SystemClock().now())


def create_operator(folder: Path, *, description: str, database_url: str) -> str:
    """Store another operator token and return its text."""
    check_initialised(folder)
    migrate(database_url)

    async def create() -> str:
        store = open_store(database_url)
        try:
            return await create_operator_token(
                store=store, clock=SystemClock(), ids=SystemIds(), description=description
            )
        finally:
            await store.close()

    return asyncio.run(create())


def _is_new(database_url: str) -> bool:
    path = sqlite_path(database_url)
    return path is not None and not path.exists()


def _write_operator_file(path: Path, *, controller: Address, ca_file: Path) -> None:
    token = credentials.encode_operator_token(SystemIds().secret())
    OperatorFile(controller=controller, token=token, ca_certificate=ca_file.read_text()).write(path)


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
