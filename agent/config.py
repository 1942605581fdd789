"""The agent's settings: who it is and where its controller is, from `agent.toml`.

Parsed once, at the start; unknown keys are errors.
"""

import json
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from agent.domain.errors import EnrollmentError, Reason, StateError


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
