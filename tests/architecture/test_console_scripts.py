"""The three programs are installed and say what they take."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

PROGRAMS = ("lineside", "lineside-agent", "lineside-controlplane")


def test_every_program_is_declared() -> None:
    declared = {script.name for script in entry_points(group="console_scripts")}
    assert set(PROGRAMS) <= declared


@pytest.mark.parametrize(
    ("program", "commands"),
    [
        ("lineside", ["agents", "deployments", "metrics", "models", "results", "rollouts", "samples", "tokens"]),
        ("lineside-agent", ["enroll", "run"]),
        ("lineside-controlplane", ["init", "serve"]),
    ],
)
def test_help_names_the_commands(program: str, commands: list[str]) -> None:
    script = Path(sys.executable).parent / program
    done = subprocess.run([str(script), "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [command for command in commands if command not in done.stdout] == []
    assert done.stderr == ""
