"""Last-known-good on its way to disk. A state file that cannot be written is a condition, not a reason to stop."""

import asyncio
from collections.abc import Callable

import structlog

from agent.app import conditions
from agent.app.conditions import Conditions
from agent.app.ports import SavedState, StateFile
from agent.domain.errors import StateError

_log = structlog.get_logger()


class StateSaver:
    """One save at a time, each of what is so when it begins."""

    def __init__(self, state_file: StateFile, conditions: Conditions, state: Callable[[], SavedState]) -> None:
        self._state_file = state_file
        self._conditions = conditions
        self._state = state
        self._saving = asyncio.Lock()
        self.unsaved = False
        """Something has changed since the last save, or that one failed."""

    async def load(self) -> SavedState:
        """What was saved last; an empty state where that cannot be read."""
        try:
            return await asyncio.to_thread(self._state_file.load)
        except StateError as error:
            _log.error("state_unreadable", reason=error.reason, error=str(error))
            self._conditions.set(conditions.STATE_READABLE, holds=False, reason="StateUnreadable", message=str(error))
            return SavedState()

    async def save(self) -> None:
        """On return what holds now is on disk, or a condition says why it is not."""
        async with self._saving:
            self.unsaved = True
            try:
                await asyncio.shield(asyncio.to_thread(self._state_file.save, self._state()))
            except StateError as error:
                self._conditions.set(
                    conditions.STATE_WRITABLE, holds=False, reason="StateUnwritable", message=str(error)
                )
                return
            self.unsaved = False
            self._conditions.set(conditions.STATE_WRITABLE, holds=True, reason="Written")
