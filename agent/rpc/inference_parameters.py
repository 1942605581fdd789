"""Request parameters: what both transports make of them, as Triton does.

`part_id` goes into results. Requests of one `application` wait behind each other and not before those of another; a
connection is an application of its own where none is named. A request that cannot begin within `deadline_ms` is
refused. Triton's own words (priority, timeout, sequence_*) are checked and have no effect: nothing
here has priorities, sequences or a queue that a request waits in for long. Names that nobody knows are left alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from agent.domain.errors import RequestError

PART_ID = "part_id"
"""Request parameter whose string goes into the result."""
APPLICATION = "application"
LOT = "lot"
"""Of an application: a swap may wait until it names another."""
DEADLINE_MS = "deadline_ms"
"""Milliseconds from the request's arrival."""

_RESERVED = "triton_"
_COUNT = "a whole number from 0 on"
_TRUTH = "true or false"
_KINDS: Mapping[str, str] = MappingProxyType(
    {
        PART_ID: "a string",
        APPLICATION: "a string",
        LOT: "a string",
        DEADLINE_MS: _COUNT,
        "priority": _COUNT,
        "timeout": _COUNT,
        "sequence_id": "a string, or a whole number from 0 on",
        "sequence_start": _TRUTH,
        "sequence_end": _TRUTH,
        "binary_data_output": _TRUTH,
        "triton_enable_empty_final_response": _TRUTH,
        "triton_final_response": _TRUTH,
    }
)
"""What the value of a parameter is that means something to the protocol, to Triton or to us."""


def check_parameters(parameters: Mapping[str, object]) -> None:
    """Raises RequestError for a value that is no string, number or truth value, for one of another kind than its name
    asks for, and for an unknown name that begins as those that Triton keeps for itself."""
    for name, value in parameters.items():
        where = f"parameters[{name[:64]}]"
        if not isinstance(value, bool | int | float | str):
            raise RequestError("no value", field=where, remedy="send a string, a number, true or false")
        kind = _KINDS.get(name)
        if kind is None and name.startswith(_RESERVED):
            raise RequestError(
                f"names that begin with {_RESERVED!r} are reserved", field=where, remedy="use another name"
            )
        if kind is not None and not _fits(kind, value):
            raise RequestError(f"not {kind}", field=where, remedy=f"send {kind}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the parameters say of a request beside its part; empty where they do not."""

    application: str = ""
    lot: str = ""
    deadline_seconds: float | None = None


NOTHING_TOLD = Told()


def told_by(parameters: Mapping[str, object]) -> Told:
    """Of parameters that have been checked."""
    if not parameters:
        return NOTHING_TOLD
    deadline_ms = parameters.get(DEADLINE_MS)
    return Told(
        application=str(parameters.get(APPLICATION, "")),
        lot=str(parameters.get(LOT, "")),
        deadline_seconds=deadline_ms / 1e3 if isinstance(deadline_ms, int) else None,
    )


def part_id_of(parameters: Mapping[str, object]) -> str:
    """Of parameters that have been checked; empty without one."""
    return str(parameters.get(PART_ID, ""))


def values_of_messages(parameters: Mapping[str, Any]) -> Mapping[str, object]:
    """The values of InferParameter messages; None of one that has none."""
    found: dict[str, object] = {}
    for name, message in parameters.items():
        choice = message.WhichOneof("parameter_choice")
        found[name] = None if choice is None else getattr(message, choice)
    return found


def _fits(kind: str, value: object) -> bool:
    truth = isinstance(value, bool)
    if kind == _TRUTH:
        return truth
    count = isinstance(value, int) and not truth and value >= 0
    if kind == _COUNT:
        return count
    return isinstance(value, str) or (count and kind != "a string")
