"""The demo's processes: a controller, agents and load generators, started by their public commands.

Each process runs in a session of its own, so that Ctrl-C reaches the demo alone, which then ends them in order.
What runs is noted in `fleet.json`, so that a later run can end what an earlier one left.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

READY_SECONDS = 60.0
COMMAND_SECONDS = 120.0
STOP_SECONDS = 15.0


class DemoError(Exception):
    """Something did not hold; the message says what, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A running agent and where applications reach it."""

    name: str
    grpc: str
    http: str


@dataclass(slots=True, kw_only=True)
class Fleet:
    """Starts processes below `folder` and ends them all."""

    folder: Path
    controller: str = ""
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def operator_file(self) -> Path:
        return self.folder / "controller" / "operator.toml"

    def start_controller(self) -> None:
        """Create the controller's folder, serve from it on free ports, and wait until it is ready."""
        state = str(self.folder / "controller")
        run(script("lineside-controlplane"), "init", "--dir", state)
        self._start("controller", [script("lineside-controlplane"), "serve", "--dir", state, "--listen", "127.0.0.1:0"])
        self.controller = self._wait_ready("controller", "lineside-controlplane ready")["api"]

    def start_agent(self, name: str, *, token: str, label: str) -> Agent:
        """Enrol an agent and run it on free ports; return when it is ready."""
        state = str(self.folder / name)
        identity = ["--controller", self.controller, "--token", token, "--name", name, "--label", label]
        run(script("lineside-agent"), "enroll", "--dir", state, *identity)
        listen = ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        self._start(name, [script("lineside-agent"), "run", "--dir", state, *listen])
        ready = self._wait_ready(name, "lineside-agent ready")
        return Agent(name=name, grpc=ready["grpc"], http=ready["http"])

    def start_load(self, name: str, arguments: Sequence[str]) -> None:
        """Start a load generator; closing its stdin ends it."""
        command = [sys.executable, "-m", "examples.solar.load", *arguments]
        self._start(name, command, stdin=subprocess.PIPE)

    def finish(self, name: str) -> None:
        """Close its stdin and wait until it has ended by itself. Raises DemoError when it does not, or fails."""
        process = self.processes[name]
        assert process.stdin is not None
        process.stdin.close()
        try:
            status = process.wait(timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise DemoError(f"{name} did not end; see {self.log(name)}") from error
        del self.processes[name]
        self._note()
        if status != 0:
            raise DemoError(f"{name} ended with status {status}; see {self.log(name)}")

    def operate(self, *arguments: str) -> Any:
        """Run one of the operator's commands with `--output json`; return what it printed, parsed."""
        text = self.operate_text(*arguments, "--output", "json")
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise DemoError(f"lineside {' '.join(arguments)} did not print JSON: {text[:200]}") from error

    def operate_text(self, *arguments: str) -> str:
        return run(script("lineside"), "--config", str(self.operator_file), *arguments)

    def watch(self, *arguments: str, seconds: float) -> Iterator[Any]:
        """Yield the JSON object on each line that one of the operator's commands prints, as it comes. Raises DemoError
        when the command has not ended in time, or when one of the processes ends meanwhile; the command's own exit
        status is the caller's to judge by what it printed."""
        command = [script("lineside"), "--config", str(self.operator_file), *arguments, "--output", "json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
            guard = threading.Thread(target=self._guard, args=(process, time.monotonic() + seconds))
            guard.start()
            try:
                assert process.stdout is not None
                yield from map(json.loads, process.stdout)
            finally:
                process.terminate()
                guard.join()
        self.check_alive()
        if process.returncode == -signal.SIGKILL:
            raise DemoError(f"lineside {' '.join(arguments)} did not end within {seconds:.0f} s")

    def _guard(self, watching: "subprocess.Popen[str]", deadline: float) -> None:
        """Kill what watches the fleet when there is nothing to wait for any more."""
        while watching.poll() is None:
            if time.monotonic() > deadline or any(process.poll() is not None for process in self.processes.values()):
                watching.kill()
            time.sleep(0.2)

    def check_alive(self) -> None:
        """Raises DemoError when a process has ended that should run."""
        for name, process in self.processes.items():
            if (status := process.poll()) is not None:
                raise DemoError(f"{name} ended with status {status}; see {self.log(name)}\n{self._tail(name)}")

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def stop(self) -> None:
        """End every process: applications, then agents, then the controller; kill what does not end."""
        for name in reversed(list(self.processes)):
            process = self.processes.pop(name)
            if process.stdin is not None:
                process.stdin.close()
            process.terminate()
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._note()

    def _start(self, name: str, command: Sequence[str], *, stdin: int = subprocess.DEVNULL) -> None:
        self.log(name).parent.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command, stdin=stdin, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._note()

    def _wait_ready(self, name: str, prefix: str) -> Mapping[str, str]:
        """Return the `key=value` pairs of the line that begins with `prefix`."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            found = re.search(rf"^{prefix} (.*)$", self.log(name).read_text(errors="replace"), re.MULTILINE)
            if found:
                return dict(pair.split("=", 1) for pair in found[1].split())
            self.check_alive()
            time.sleep(0.05)
        raise DemoError(f"{name} was not ready within {READY_SECONDS:.0f} s; see {self.log(name)}\n{self._tail(name)}")

    def _tail(self, name: str) -> str:
        return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-15:])

    def _note(self) -> None:
        running = {
            name: {"pid": process.pid, "started": started(process.pid)} for name, process in self.processes.items()
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "fleet.json").write_text(json.dumps(running, indent=2))


def stop_left_over(folder: Path) -> list[str]:
    """End what an earlier run noted in `folder` and left running; return the names."""
    note = folder / "fleet.json"
    noted = json.loads(note.read_text()) if note.exists() else {}
    ended = []
    for name, process in reversed(noted.items()):
        if started(process["pid"]) != process["started"] or process["started"] is None:
            continue  # it has ended, or the number is another process's by now
        ended.append(name)
        os.kill(process["pid"], signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while started(process["pid"]) == process["started"]:
            if time.monotonic() > deadline:
                os.killpg(process["pid"], signal.SIGKILL)
            time.sleep(0.05)
    note.unlink(missing_ok=True)
    return ended


def started(pid: int) -> str | None:
    """When the live process began, in ticks since the machine did: with the pid it names one process. Else None."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def script(name: str) -> str:
    """A console script of the environment that runs the demo."""
    return str(Path(sys.executable).parent / name)


def run(*command: str) -> str:
    """Run to the end and return stdout. Raises DemoError with stderr when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise DemoError(f"{' '.join(command)} did not end within {COMMAND_SECONDS:.0f} s") from error
    if done.returncode != 0:
        raise DemoError(
            f"{' '.join(command)} failed with status {done.returncode}:\n{done.stderr.strip() or done.stdout}"
        )
    return done.stdout
