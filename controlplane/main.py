"""`lineside-controlplane`: makes a controller's folder, and serves it."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from controlplane import limits
from controlplane.config import (
    Address,
    Settings,
    default_artifact_url,
    default_database_url,
    parse_duration,
)
from controlplane.domain.errors import DomainError, FieldInvalidError
from controlplane.observability import configure_logging

app = App(
    name="lineside-controlplane",
    help="The controller of a Lineside fleet: `init` makes its folder, `serve` serves it.",
)
operators = App(name="operators", help="Operators' tokens.")
app.command(operators)

Folder = Annotated[Path, Parameter(name="--dir", help="The controller's folder.")]
DatabaseUrl = Annotated[
    str | None,
    Parameter(
        env_var="LINESIDE_DATABASE_URL",
        help="sqlite:///PATH or postgresql://...; the default is SQLite in the folder.",
    ),
]


@app.command
def init(
    *, dir: Folder, controller: str = "127.0.0.1:7443", database_url: DatabaseUrl = None, join: Path | None = None
) -> None:
    """Make the folder: CA, database, and operator.toml with the first operator's token.

    A second run changes nothing; an interrupted one is simply repeated.

    Example: lineside-controlplane init --dir /var/lib/lineside --controller ctl.example.com:7443

    Parameters
    ----------
    controller
        HOST:PORT by which operators reach this controller; goes into operator.toml.
    join
        Folder of a controller on the same PostgreSQL, or a copy of it: the new one becomes its replica.
    """
    from controlplane.initialisation import initialise

    folder = dir.absolute()
    made = initialise(
        folder,
        controller=Address.parse(controller, field="controller"),
        database_url=database_url or default_database_url(folder),
        join=None if join is None else join.absolute(),
    )
    for line in made or (f"{folder} is a controller's folder already; nothing to do",):
        print(line)


@app.command
def serve(
    *,
    dir: Folder,
    listen: str = "127.0.0.1:7443",
    fleet_listen: str | None = None,
    agent_bytes_listen: str | None = None,
    operator_bytes_listen: str | None = None,
    database_url: DatabaseUrl = None,
    artifact_url: Annotated[str | None, Parameter(env_var="LINESIDE_ARTIFACT_URL")] = None,
    sync_interval: str = "2s",
    agent_certificate_ttl: str = "30d",
    result_retention: str | None = None,
    log_level: str = "INFO",
    metrics: str | None = None,
    allow_remote: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Serve the folder until SIGTERM or Ctrl-C. Prints one line when everything listens.

    Example: lineside-controlplane serve --dir /var/lib/lineside --listen 0.0.0.0:7443 --metrics 127.0.0.1:9091

    Parameters
    ----------
    listen
        HOST:PORT for operators and enrolment; port 0 takes any free ports.
    fleet_listen
        HOST:PORT for agents' sync; the next port by default, or any free one where that is taken.
    agent_bytes_listen
        HOST:PORT for agents' model bytes and samples; by default the port after that.
    operator_bytes_listen
        HOST:PORT for uploads and contents of samples; by default the port after that.
    artifact_url
        Object store: file:///PATH, s3://BUCKET/PREFIX, gs://... or az://...; the default is in the folder.
    sync_interval
        How often agents send their whole state, for example 2s; 10s for thousands of agents.
    agent_certificate_ttl
        Lifetime of agents' certificates, for example 30d; agents renew at two thirds of it.
    result_retention
        How long results are kept, for example 365d; for good unless given. Metrics stay.
    log_level
        DEBUG, INFO, WARNING or ERROR.
    metrics
        HOST:PORT where Prometheus scrapes /metrics, without encryption or login; nowhere unless given.
    allow_remote
        Let metrics be reached from other machines.
    """
    folder = dir.absolute()
    listeners = Listeners.parse(listen, fleet_listen, agent_bytes_listen, operator_bytes_listen)
    settings = Settings(
        dir=folder,
        database_url=database_url or default_database_url(folder),
        artifact_url=artifact_url or default_artifact_url(folder),
        api=listeners.api,
        fleet=listeners.fleet,
        agent_bytes=listeners.agent_bytes,
        operator_bytes=listeners.operator_bytes,
        sync_interval_seconds=_bounded(
            sync_interval, timedelta(milliseconds=50), timedelta(minutes=5), field="sync_interval"
        ).total_seconds(),
        agent_certificate_ttl=_bounded(
            agent_certificate_ttl,
            limits.AGENT_CERTIFICATE_TTL_MIN,
            limits.AGENT_CERTIFICATE_TTL_MAX,
            field="agent_certificate_ttl",
        ),
        result_retention=_retention(result_retention),
        log_level=_log_level(log_level),
    )
    scraped = None if metrics is None else _metrics_address(metrics, allow_remote=allow_remote)
    _serve(settings, fall_back=listeners.fall_back, metrics=scraped)


@app.command
def migrate(*, dir: Folder, database_url: DatabaseUrl = None) -> None:
    """Bring the database to the newest schema. `serve` does so too; this is for doing it apart.

    Example: lineside-controlplane migrate --dir /var/lib/lineside
    """
    from controlplane.store import migrate as migrate_database

    migrate_database(database_url or default_database_url(dir.absolute()))
    print("the database has the newest schema")


@operators.command(name="create")
def create_operator(*, dir: Folder, name: str = "", description: str = "", database_url: DatabaseUrl = None) -> None:
    """Make another operator and print its token; nothing can show it again.

    Example: lineside-controlplane operators create --dir /var/lib/lineside --name anna --description "night shift"

    Parameters
    ----------
    name
        Id by which the log of decisions names the operator: lower-case letters, digits and hyphens. Without one it is
        made up.
    description
        Who or what it is.
    """
    from controlplane.initialisation import create_operator as create

    folder = dir.absolute()
    print(create(folder, name=name, description=description, database_url=database_url or default_database_url(folder)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """Where to listen; `fall_back` names those that nobody asked for by number."""

    api: Address
    fleet: Address
    agent_bytes: Address
    operator_bytes: Address
    fall_back: frozenset[str]

    @classmethod
    def parse(cls, listen: str, fleet: str | None, agent_bytes: str | None, operator_bytes: str | None) -> "Listeners":
        """Return the listeners; those that are not given take the ports after that of `listen`."""
        api = Address.parse(listen, field="listen")
        given = {"fleet": fleet, "agent_bytes": agent_bytes, "operator_bytes": operator_bytes}
        addresses = {
            name: Address.parse(text, field=f"{name}_listen") if text else _following(api, place)
            for place, (name, text) in enumerate(given.items(), start=1)
        }
        return cls(api=api, fall_back=frozenset(name for name, text in given.items() if not text), **addresses)


def _following(api: Address, place: int) -> Address:
    port = api.port + place
    return api.with_port(port if api.port and port <= 65535 else 0)


def _retention(text: str | None) -> timedelta | None:
    """None keeps results for good."""
    if text is None:
        return None
    return _bounded(text, limits.RESULT_RETENTION_MIN, limits.RESULT_RETENTION_MAX, field="result_retention")


def _bounded(text: str, least: timedelta, most: timedelta, *, field: str) -> timedelta:
    duration = parse_duration(text, field=field)
    if not least <= duration <= most:
        raise FieldInvalidError(f"{text} is not possible", field=field, remedy=f"use {least} to {most}")
    return duration


def _log_level(text: str) -> str:
    if text.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise FieldInvalidError(
            f"{text!r} is not a level", field="log_level", remedy="use DEBUG, INFO, WARNING or ERROR"
        )
    return text.upper()


def _metrics_address(text: str, *, allow_remote: bool) -> Address:
    address = Address.parse(text, field="metrics")
    if allow_remote or address.is_loopback:
        return address
    raise FieldInvalidError(
        f"{address.host} can be reached from other machines, and metrics have neither encryption nor login",
        field="metrics",
        remedy="use 127.0.0.1, or add --allow-remote where the network is trusted",
    )


def _serve(settings: Settings, *, fall_back: frozenset[str], metrics: Address | None) -> None:
    # Before gRPC is imported, for both processes: uvloop starts children by fork, and gRPC's fork handlers would run in
    # the child and write to the parent's TLS connections, whose peers then see corrupted records.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
    from controlplane import folder, serving
    from controlplane.bytes_process import keep_freed_memory
    from controlplane.initialisation import ensure_server_certificate
    from controlplane.store import migrate as migrate_database

    configure_logging(level=settings.log_level)
    folder.check_initialised(settings.dir)
    with folder.hold(settings.dir):
        serving.raise_open_files()
        keep_freed_memory()
        migrate_database(settings.database_url)
        ensure_server_certificate(settings.pki_dir, hosts=serving.listen_hosts(settings))
        _run(lambda: serving.serve(settings, fall_back=fall_back, metrics=metrics))


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run on uvloop where there is one."""
    try:
        from uvloop import new_event_loop
    except ModuleNotFoundError:
        asyncio.run(work())
        return
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(work())


def main() -> None:
    """Entry point of the console script. Refusals end with status 1 and one line on stderr."""
    try:
        app()
    except (DomainError, OSError, RuntimeError) as error:
        print(f"lineside-controlplane: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
