"""What an agent's folder says, read without disturbing the agent that may be running on it."""

from typing import Any

from rich.console import Console
from rich.table import Table

from agent.app.ports import SavedState
from agent.config import read_settings
from agent.domain.errors import EnrollmentError
from agent.storage import state_codec
from agent.storage.folder import AgentFolder
from agent.storage.identity import IdentityFiles


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
        if key != "slots":
            console.print(f"{key.replace('_', ' ')}: {value}")
    table = Table("slot", "desired", "serving", "device", "failure")
    for slot in found["slots"]:
        table.add_row(*(str(value) for value in slot.values()))
    console.print(table)
