"""A real controller as processes of its own, to be killed and started again on one folder and the same ports.

controller = ControllerProcess(folder=tmp_path / "controller")
controller.init()
controller.start()                 # returns when everything listens
controller.create_join_token(uses=1)
controller.kill(); controller.start()
controller.stop()
"""

import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

READY = re.compile(r"lineside-controlplane ready api=(\S+) fleet=(\S+) agent_bytes=(\S+) operator_bytes=(\S+)")
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
_LISTENERS = ("api", "fleet", "agent_bytes", "operator_bytes")


@dataclass(slots=True, kw_only=True)
class ControllerProcess:
    """`folder` survives the process; the addresses are those of the last start, and asked for again by the next."""

    folder: Path
    options: Sequence[str] = ("--sync-interval", "200ms")
    """Further options of `serve`."""
    addresses: dict[str, str] = field(default_factory=lambda: dict.fromkeys(_LISTENERS, "127.0.0.1:0"))
    process: subprocess.Popen[str] | None = None

    @property
    def api(self) -> str:
        return self.addresses["api"]

    @property
    def operator_file(self) -> Path:
        """What `lineside --config` takes."""
        return self.folder / "operator.toml"

    @property
    def operator_token(self) -> str:
        return str(tomllib.loads(self.operator_file.read_text())["token"])

    @property
    def ca_certificate(self) -> bytes:
        return (self.folder / "pki" / "ca.pem").read_bytes()

    def init(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the public command; the caller looks at the exit status."""
        return run_command("init", "--dir", str(self.folder), *options)

    def start(self) -> None:
        """Start it and return when everything listens; keep its addresses for the next start."""
        command = ["serve", "--dir", str(self.folder), "--listen", self.addresses["api"]]
        if self.addresses["fleet"] != "127.0.0.1:0":
            for name in _LISTENERS[1:]:
                command += [f"--{name.replace('_', '-')}-listen", self.addresses[name]]
        with (self.folder.parent / f"{self.folder.name}.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "controlplane.main", *command, *self.options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._wait_until_ready(self.process)

    def kill(self) -> None:
        """SIGKILL of the control process, as a power switch would; return when its bytes process followed by itself."""
        if self.process is not None:
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self._reap()
            deadline = time.monotonic() + STOP_SECONDS_MAX
            while alive := [child for child in children if _is_alive(child)]:
                assert time.monotonic() < deadline, f"outlived the controller: {alive}"
                time.sleep(0.001)

    def stop(self) -> int:
        """SIGTERM and wait; return the exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        return self._reap()

    def log(self) -> str:
        """Everything it has logged over all its starts."""
        path = self.folder.parent / f"{self.folder.name}.log"
        return path.read_text() if path.exists() else ""

    def create_join_token(self, *, uses: int = 1, ttl: str = "1h", labels: Sequence[str] = ()) -> str:
        """Create a join token by the public command line and return its text."""
        command = ["--config", str(self.operator_file), "tokens", "create", "--uses", str(uses), "--ttl", ttl]
        for label in labels:
            command += ["--label", label]
        done = subprocess.run(
            [sys.executable, "-m", "controlplane.cli.main", *command],
            capture_output=True,
            text=True,
            timeout=START_SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _wait_until_ready(self, process: subprocess.Popen[str]) -> None:
        watchdog = threading.Timer(START_SECONDS_MAX, process.kill)
        watchdog.start()
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := READY.search(line):
                    self.addresses = dict(zip(_LISTENERS, found.groups(), strict=True))
                    return
        finally:
            watchdog.cancel()
        self._reap()
        raise AssertionError(f"the controller did not become ready:\n{self.log()[-4000:]}")

    def _reap(self) -> int:
        assert self.process is not None
        try:
            return self.process.wait(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None


def _is_alive(process: psutil.Process) -> bool:
    """Not so of what has ended and waits for whoever inherited it to notice."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `lineside-controlplane` to its end; the caller looks at the exit status."""
    return subprocess.run(
        [sys.executable, "-m", "controlplane.main", *arguments],
        capture_output=True,
        text=True,
        timeout=START_SECONDS_MAX,
        check=False,
    )
