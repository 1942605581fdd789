"""Settings of the controller: parsed once in `main`, passed on as one frozen value.

The two processes of a controller
---------------------------------
The *control process* (`lineside-controlplane serve`, `controlplane.main`) listens on `api` and `fleet`, migrates
the database and runs the jobs. It starts and supervises the *bytes process*, which listens on `agent_bytes`
and `operator_bytes`. Their contract:

- It is started as `python -m controlplane.bytes_process` with the environment variable LINESIDE_SETTINGS, JSON from
  `Settings.to_json()`, which it reads with `Settings.from_json(text)`. (An argument would show a password within the
  database's URL to everybody on the machine.) Keys are read from `dir`.
- It must not start before the database is migrated and the keys exist, and need not check either.
- Ports in `settings.agent_bytes` / `settings.operator_bytes` are what to bind; 0 means any. When both listeners
  accept, it prints exactly one line to stdout: `{"agent_bytes": "HOST:PORT", "operator_bytes": "HOST:PORT"}`
  with the bound ports, and nothing else on stdout, ever. Logs go to stderr.
- A restarted bytes process is given the ports that the first one bound. A port that is taken at the start may be one
  that a killed predecessor still holds: retry for `limits.BIND_RETRY_SECONDS` (`controlplane.rpc.server.start`
  does that), then exit with status 1.
- It ends gracefully on SIGTERM (within `limits.SHUTDOWN_GRACE_SECONDS`), and at once when its stdin reaches its
  end: the parent holds the other end of that pipe, so even `kill -9` of the control process ends it.
"""

import ipaddress
import json
import re
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

from controlplane import limits
from controlplane.domain.errors import FieldInvalidError

SETTINGS_VARIABLE = "LINESIDE_SETTINGS"
"""How the bytes process is given its settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen. Port 0 means any free port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, field: str) -> "Address":
        """Return the address of "host:port" or "[v6]:port"; raise FieldInvalidError for any other text."""
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise FieldInvalidError(
                f"{text!r} is not an address", field=field, remedy="write HOST:PORT, for example 127.0.0.1:7443"
            )
        return cls(host=host, port=int(port))

    def with_port(self, port: int) -> "Address":
        return Address(host=self.host, port=port)

    @property
    def is_wildcard(self) -> bool:
        """Whether it means every interface, and so no address that a client could dial."""
        return self.host in {"", "0.0.0.0", "::"}

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it. A name but localhost does not count: what it means may change."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that `serve` was told, with the defaults filled in."""

    dir: Path
    """The controller's folder, absolute."""
    database_url: str
    """`sqlite:///path` or `postgresql://...`."""
    artifact_url: str
    """Object store: a folder's file:// URL, s3://, gs:// or az://."""
    api: Address
    fleet: Address
    agent_bytes: Address
    operator_bytes: Address
    sync_interval_seconds: float = limits.SYNC_INTERVAL_SECONDS_DEFAULT
    """Handed out to agents: when to send the next whole state."""
    agent_certificate_ttl: timedelta = limits.AGENT_CERTIFICATE_TTL_DEFAULT
    log_level: str = "INFO"
    result_retention: timedelta | None = None
    """Results that came longer ago are removed; None keeps them."""

    @property
    def pki_dir(self) -> Path:
        return self.dir / "pki"

    @property
    def upload_dir(self) -> Path:
        """Partial uploads."""
        return self.dir / "uploads"

    @property
    def work_dir(self) -> Path:
        """What is needed for the length of a call only; cleared at each start."""
        return self.dir / "tmp"

    @property
    def training_dir(self) -> Path:
        """Jobs of trainers; they outlive the process that started them."""
        return self.dir / "training"

    @property
    def trainers_file(self) -> Path:
        """Trainers beside those that come with the controller; it need not exist."""
        return self.dir / "trainers.toml"

    @property
    def operator_file(self) -> Path:
        return self.dir / "operator.toml"

    def to_json(self) -> str:
        """Return text that `from_json` reads back as an equal value."""
        return json.dumps(asdict(self), default=_jsonable)

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        """Return the settings written by `to_json`; unknown keys are a TypeError."""
        values = json.loads(text)
        for name in ("api", "fleet", "agent_bytes", "operator_bytes"):
            values[name] = Address(**values[name])
        values["dir"] = Path(values["dir"])
        values["agent_certificate_ttl"] = timedelta(seconds=values["agent_certificate_ttl"])
        kept_seconds = values["result_retention"]
        values["result_retention"] = None if kept_seconds is None else timedelta(seconds=kept_seconds)
        return cls(**values)


def default_database_url(folder: Path) -> str:
    """SQLite in the controller's folder."""
    return f"sqlite:///{folder / 'lineside.db'}"


def default_artifact_url(folder: Path) -> str:
    """A local object store in the controller's folder."""
    return (folder / "artifacts").as_uri()


def parse_duration(text: str, *, field: str) -> timedelta:
    """Return the duration of "90s", "1.5h" or "30d"; raise FieldInvalidError for any other text."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise FieldInvalidError(
            f"{text!r} is not a duration", field=field, remedy="write for example 90s, 15m, 12h or 30d"
        )
    return timedelta(**{_UNITS[found["unit"]]: float(found["count"])})


_DURATION = re.compile(r"(?P<count>[0-9]{1,9}(\.[0-9]{1,6})?)(?P<unit>ms|s|m|h|d)")
_UNITS = MappingProxyType({"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"})


def _jsonable(value: object) -> object:
    match value:
        case Path():
            return str(value)
        case timedelta():
            return value.total_seconds()
        case _:
            raise TypeError(type(value).__name__)
