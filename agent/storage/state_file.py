"""Last-known-good on disk, replaced atomically. A file that cannot be read is set aside, never overwritten."""

from pathlib import Path

from agent.app.ports import SavedState
from agent.domain.errors import Reason, StateError
from agent.storage import durable, state_codec


class JsonStateFile:
    """`app.ports.StateFile` in one JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> SavedState:
        try:
            return state_codec.decode(self._path.read_bytes())
        except FileNotFoundError:
            return SavedState()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            aside = self._set_aside() if not isinstance(error, OSError) else None
            where = f"it is set aside as {aside.name}, and" if aside is not None else "meanwhile"
            raise StateError(
                f"{self._path} cannot be read: {error!r}",
                field="state.json",
                remedy=f"{where} the agent starts empty; what it should run comes with the next sync",
                reason=Reason.STATE_UNREADABLE,
            ) from error

    def _set_aside(self) -> Path | None:
        """Move the file out of the way, to be looked at; None where even that cannot be done."""
        aside = self._path.with_name(f"{self._path.name}.unreadable")
        try:
            self._path.replace(aside)
        except OSError:
            return None
        return aside

    def save(self, state: SavedState) -> None:
        try:
            durable.write_durably(self._path, state_codec.encode(state))
        except OSError as error:
            raise StateError(
                f"cannot write {self._path}: {error.strerror}",
                field="state.json",
                remedy="make the agent's folder writable and free some disk; the agent goes on serving meanwhile",
                reason=Reason.STATE_UNWRITABLE,
            ) from error
