"""What an agent's folder says, and what the agent that runs on it says of itself; neither disturbs it."""

from typing import Any

from rich.console import Console
from rich.table import Table

from agent.app.conditions import TRUE
from agent.app.ports import SavedState
from agent.config import read_settings
from agent.domain.errors import EnrollmentError
from agent.live import read_live_status
from agent.storage import state_codec
from agent.storage.folder import AgentFolder
from agent.storage.identity import IdentityFiles

_ADDRESSES = ("grpc", "http", "metrics", "grpc_socket", "http_socket")


def read_status(folder: AgentFolder) -> dict[str, Any]:
    """Raises EnrollmentError (NOT_ENROLLED) where the folder belongs to no agent."""
    settings = read_settings(folder.settings)
    try:
        expire_time = IdentityFiles(folder.pki, agent=settings.agent).expire_time().isoformat()
    except EnrollmentError:
        expire_time = ""
    saved, readable = _saved_state(folder)
    return {
        "agent": settings.agent,
        "controller": settings.controller,
        "certificate_expire_time": expire_time,
        "state_readable": readable,
        "boot_count": saved.boot_count,
        "generation": saved.desired.generation,
        "slots": _slots(saved),
        "batches_waiting": len(list(folder.results.glob("*.seg"))),
        "samples_waiting": len(list(folder.samples.glob("*.sample"))),
        "live": read_live_status(folder),
    }


def _saved_state(folder: AgentFolder) -> tuple[SavedState, bool]:
    try:
        return state_codec.decode(folder.state.read_bytes()), True
    except FileNotFoundError:
        return SavedState(), True
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return SavedState(), False


def _slots(saved: SavedState) -> list[dict[str, Any]]:
    desired = {slot.slot: slot.version for slot in saved.desired.slots}
    serving = {record.desired.slot: record for record in saved.serving}
    failures = {failure.slot: failure for failure in saved.failures}
    return [
        {
            "slot": name,
            "desired_version": desired.get(name, 0),
            "serving_version": serving[name].desired.version if name in serving else 0,
            "device": serving[name].choice.device if name in serving else "",
            "failure": failures[name].message if name in failures else "",
        }
        for name in sorted({*desired, *serving, *failures})
    ]


def status_table(found: dict[str, Any]) -> None:
    """Print the status for people."""
    console = Console()
    for key, value in found.items():
        if key not in ("slots", "live"):
            console.print(f"{key.replace('_', ' ')}: {value}")
    table = Table("slot", "desired", "serving", "device", "failure")
    for slot in found["slots"]:
        table.add_row(*(str(value) for value in slot.values()))
    console.print(table)
    if found["live"] is None:
        console.print("The agent does not run, or does not answer.")
    else:
        _live_tables(console, found["live"])


def _live_tables(console: Console, live: dict[str, Any]) -> None:
    listening, sync, spool = live["listening"], live["sync"], live["spool"]
    console.print(
        f"runs as process {listening['pid']} since {listening['start_time']}: "
        + ", ".join(f"{name} {listening[name]}" for name in _ADDRESSES if listening[name])
    )
    console.print(f"controller: {_sync_sentence(sync)}")
    console.print(
        "spool: "
        + ", ".join(
            f"{each['waiting']} {name} wait ({each['size_bytes']} bytes, {each['dropped']} dropped)"
            for name, each in spool.items()
        )
    )
    samples = live["samples"]
    skipped = ", ".join(f"{count} {why}" for why, count in samples["skipped"].items() if count)
    reasons = ", ".join(f"{count} {reason.lower()}" for reason, count in samples["kept_by_reason"].items() if count)
    console.print(f"samples: {samples['kept']} kept ({reasons or 'none'}); not kept: {skipped or 'none'}")
    slots = Table("slot", "state", "version", "of", "device", "requests", "failed", "mean ms", "failure")
    for slot in live["slots"]:
        mean_ms = slot["request_ms_mean"]
        slots.add_row(
            slot["slot"],
            slot["state"] + (" (last known good)" if slot["last_known_good"] else ""),
            str(slot["serving_version"]),
            str(slot["target_version"]),
            slot["device"],
            str(slot["requests"]),
            str(slot["failed"]),
            "" if mean_ms is None else f"{mean_ms:.2f}",
            slot["failure"],
        )
    console.print(slots)
    devices = Table("device", "name", "driver")
    for device in live["devices"]:
        devices.add_row(device["device"], device["name"], device["driver"])
    console.print(devices)
    for condition in live["conditions"]:
        if condition["state"] != TRUE:
            console.print(f"{condition['type']} is {condition['state']}: {condition['message'] or condition['reason']}")


def _sync_sentence(sync: dict[str, Any]) -> str:
    generations = f"runs generation {sync['observed_generation']} of {sync['desired_generation']}"
    age = sync["heard_age_seconds"]
    if age is None:
        return f"not heard since the start, {sync['failures']} failures; {generations}"
    state = "connected" if sync["connected"] else f"away, {sync['failures']} failures since the start"
    return f"{state}, heard {age:.1f} s ago; {generations}"
