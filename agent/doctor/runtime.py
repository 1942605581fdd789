"""Checks of OpenVINO and its devices, in children: whatever is wrong with a driver must not end the doctor."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from agent import limits
from agent.doctor.finding import Finding, fail, warn, well

_REINSTALL = "install it again: pip install --force-reinstall 'lineside[agent]'"


def check_runtime(compiled_folder: Path) -> Iterator[Finding]:
    """OpenVINO itself, then every device."""
    finding = check_openvino()
    yield finding
    if not finding.remedy:
        yield from check_devices(compiled_folder)


def check_openvino(interpreter: str = sys.executable) -> Finding:
    """Import it in a process of its own."""
    try:
        done = subprocess.run(
            [interpreter, "-c", "import openvino; print(openvino.__version__)"],
            capture_output=True,
            text=True,
            timeout=limits.DOCTOR_OPENVINO_SECONDS_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return fail("openvino", f"it cannot be imported: {error}", _REINSTALL)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return fail("openvino", f"it cannot be imported: {last}", _REINSTALL)
    return well("openvino", done.stdout.strip())


def check_devices(compiled_folder: Path) -> Iterator[Finding]:
    """What OpenVINO finds on the box."""
    from agent.runtime.openvino_runtime import OpenVinoRuntime
    from agent.runtime.plugins import ENVIRONMENT_VARIABLE, parse_plugins

    plugins = parse_plugins(os.environ.get(ENVIRONMENT_VARIABLE, ""))
    runtime = OpenVinoRuntime(compiled_folder=compiled_folder, plugins=plugins)
    devices = asyncio.run(runtime.devices())
    if not devices:
        yield fail("devices", "OpenVINO finds none, not even the processor", _REINSTALL)
    for device in devices:
        failure = device.properties.get("ENUMERATION_FAILURE", "")
        name = f"device {device.device}"
        if failure:
            yield warn(
                name,
                f"looking for devices failed, so this is used alone: {failure}",
                "update or remove the driver of the accelerator that it names",
            )
        else:
            yield well(name, ", ".join(part for part in (device.full_name, device.driver_version) if part))
