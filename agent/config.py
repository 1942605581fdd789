"""The agent's settings: who it is and where its controller is, from `agent.toml`.

Parsed once, at the start; unknown keys are errors.
"""

import json
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from agent.domain.errors import EnrollmentError, Reason, RequestError, StateError


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where the controller's listeners are, each "host:port"."""

    api: str
    fleet: str
    agent_bytes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """`agent.toml`, written by `enroll`."""

    agent: str
    """Id of this agent, `st-1` of `agents/st-1`."""
    controller: str
    """The controller's API listener, "host:port"."""
    fleet: str
    """Its fleet listener as enrolment told it; asked for anew when it cannot be reached."""
    agent_bytes: str
    """Its bytes listener, likewise."""

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(api=self.controller, fleet=self.fleet, agent_bytes=self.agent_bytes)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener of the agent binds; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


def parse_address(text: str, *, field: str) -> Address:
    """ "host:port" as an Address. Raises RequestError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise RequestError(f"{text!r} is no address", field=field, remedy='write "host:port", as in 127.0.0.1:9001')
    return Address(host, int(port))


def check_loopback(address: Address, *, field: str) -> None:
    """Raise RequestError for an address beyond this box: the inference protocol has neither login nor encryption."""
    if address.host not in LOOPBACK_HOSTS:
        raise RequestError(
            f"{address.host} is reachable from outside, and inference is neither encrypted nor authenticated",
            field=field,
            remedy="bind to 127.0.0.1, or add --allow-remote where the network is trusted",
        )


def read_settings(path: Path) -> AgentSettings:
    """Raises EnrollmentError (NOT_ENROLLED) where there is none, StateError when it is not as it should be."""
    try:
        value = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise EnrollmentError(
            f"{path.parent} belongs to no agent yet",
            field="--dir",
            remedy="run `lineside-agent enroll` on it first",
            reason=Reason.NOT_ENROLLED,
        ) from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error
    return _parse(path, value)


def _parse(path: Path, value: dict[str, Any]) -> AgentSettings:
    known = {field.name for field in fields(AgentSettings)}
    if value.keys() != known:
        wrong = ", ".join(sorted(value.keys() ^ known))
        raise _unreadable(path, f"keys unknown or missing: {wrong}")
    if not all(isinstance(item, str) and item for item in value.values()):
        raise _unreadable(path, "every value is a string that is not empty")
    return AgentSettings(**value)


def settings_text(settings: AgentSettings) -> str:
    """The settings as TOML. JSON strings are TOML strings for the characters that ids and addresses have."""
    return "".join(f"{field.name} = {json.dumps(getattr(settings, field.name))}\n" for field in fields(settings))


def _unreadable(path: Path, what: str) -> StateError:
    return StateError(
        f"{path}: {what}",
        field="agent.toml",
        remedy="mend the file, or remove it and run `lineside-agent enroll` on the folder again",
        reason=Reason.STATE_UNREADABLE,
    )
