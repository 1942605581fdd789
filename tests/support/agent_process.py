"""A real agent as a process of its own, to be killed and started again on one folder."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

READY = re.compile(r"lineside-agent ready grpc=(\S+) http=(\S+)")
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 20.0


@dataclass(slots=True, kw_only=True)
class AgentProcess:
    """`folder` survives the process; the addresses are those of the last start."""

    folder: Path
    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    grpc_address: str = "127.0.0.1:0"
    http_address: str = "127.0.0.1:0"
    process: subprocess.Popen[str] | None = None
    log_path: Path | None = None
    """Where it logs; in the folder where that is None."""

    def enroll(self, *, controller: str, token: str, labels: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run the public command; the caller looks at the exit status."""
        command = [
            "enroll",
            "--dir",
            str(self.folder),
            "--controller",
            controller,
            "--token",
            token,
            "--name",
            self.name,
        ]
        for label in labels:
            command += ["--label", label]
        return subprocess.run(  # noqa: PLW1510
            [sys.executable, "-m", "agent.main", *command], capture_output=True, text=True, timeout=START_SECONDS_MAX
        )

    def start(self, *options: str) -> None:
        """Start it and return when it listens; keep its addresses for the next start."""
        log = self._log_path().open("a")
        command = ["run", "--dir", str(self.folder), "--grpc", self.grpc_address, "--http", self.http_address, *options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent.main", *command],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **self.environment},
        )
        log.close()
        watchdog = threading.Timer(START_SECONDS_MAX, self.process.kill)
        watchdog.start()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := READY.search(line):
                watchdog.cancel()
                self.grpc_address, self.http_address = found.groups()
                return
        watchdog.cancel()
        raise AssertionError(f"{self.name} did not become ready:\n{self.log()[-4000:]}")

    def kill(self) -> None:
        """SIGKILL, as a power switch would."""
        if self.process is not None:
            self.process.kill()
            self._reap()

    def stop(self) -> int:
        """SIGTERM and wait; return the exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        return self._reap()

    def log(self) -> str:
        """Everything it has logged over all its starts."""
        path = self._log_path()
        return path.read_text() if path.exists() else ""

    def _log_path(self) -> Path:
        return self.log_path or self.folder / "agent.log"

    def _reap(self) -> int:
        assert self.process is not None
        try:
            status = self.process.wait(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None
        return status
