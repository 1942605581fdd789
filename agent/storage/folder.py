"""The layout of the agent's folder, and the lock that gives it to one process.

agent.toml                        who this agent is and where its controller is
pki/{key,certificate,ca}.pem      its identity; `pki` is a link that renewal moves in one step
state.json                        last-known-good
artifacts/<digest>/ partial/      verified versions, and files on their way
compiled/                         OpenVINO's cache
spool/results/ spool/samples/     what waits for the controller
lock                              held by the process that runs on the folder
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.domain.errors import Reason, StateError


@dataclass(frozen=True, slots=True)
class AgentFolder:
    """Paths within the folder at `root`."""

    root: Path

    @property
    def settings(self) -> Path:
        return self.root / "agent.toml"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def compiled(self) -> Path:
        return self.root / "compiled"

    @property
    def results(self) -> Path:
        return self.root / "spool" / "results"

    @property
    def samples(self) -> Path:
        return self.root / "spool" / "samples"

    @property
    def status_socket(self) -> Path:
        return self.root / "status.sock"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    def create(self) -> None:
        """Make the folder, readable by its owner alone. Raises StateError (STATE_UNWRITABLE)."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StateError(
                f"cannot make {self.root}: {error.strerror}",
                field="--dir",
                remedy="name a folder that this user may write",
                reason=Reason.STATE_UNWRITABLE,
            ) from error


class FolderLock:
    """One process per folder. The system lets go of the lock when the process ends, however it ends."""

    def __init__(self, folder: AgentFolder) -> None:
        self._folder = folder
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Raises StateError (STATE_LOCKED) while another process holds the folder."""
        path = self._folder.lock
        try:
            # Not for writing: a file that is open so keeps its file system from being made read-only.
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            # A folder that cannot be written can still be served from; a lock on the folder itself needs no writing.
            self._descriptor = os.open(self._folder.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise StateError(
                f"another lineside-agent runs on {self._folder.root}",
                field="--dir",
                remedy="stop it first, or give this agent a folder of its own",
                reason=Reason.STATE_LOCKED,
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
