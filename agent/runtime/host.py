"""Facts of the box itself."""

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

import psutil

from agent.domain.device import Host


def read_host(folder: Path, *, openvino_version: str) -> Host:
    """The box now; disk numbers are of the file system that holds `folder`, which exists."""
    disk = shutil.disk_usage(folder)
    return Host(
        hostname=platform.node(),
        os=_os_name(),
        os_release=platform.release(),
        architecture=platform.machine(),
        cpu_model=_cpu_model(),
        cpu_count=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        disk_bytes=disk.total,
        disk_free_bytes=disk.free,
        agent_version=metadata.version("lineside"),
        openvino_version=openvino_version,
    )


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
