"""OpenVINO plugins from outside its wheel: accelerators of other vendors, and a second real device for tests.

They are named in the environment variable LINESIDE_OPENVINO_PLUGINS as `NAME=LIBRARY[,NAME=LIBRARY...]`. A library
without a folder is looked for beside OpenVINO's own, so `SIMCPU=libopenvino_intel_cpu_plugin.so` registers the CPU
plugin a second time (OpenVINO asks that such a device's name contain "CPU").
"""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import openvino as ov

from agent.domain.errors import StateError

ENVIRONMENT_VARIABLE = "LINESIDE_OPENVINO_PLUGINS"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,30}")


def parse_plugins(text: str) -> Mapping[str, str]:
    """Library by device name. Raises StateError when the text is not of the documented form."""
    plugins: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, library = item.partition("=")
        if not equals or not library or not _NAME.fullmatch(name) or name in plugins:
            raise StateError(
                f"{item!r} is not a plugin", field=ENVIRONMENT_VARIABLE, remedy="write NAME=LIBRARY, each name once"
            )
        plugins[name] = library
    return MappingProxyType(plugins)


def open_core(plugins: Mapping[str, str]) -> ov.Core:
    """A Core that knows `plugins`. A library that cannot be loaded is met when its device is first used."""
    core = ov.Core()
    for name, library in sorted(plugins.items()):
        beside = Path(ov.__file__).parent / "libs" / library
        core.register_plugin(str(beside) if "/" not in library else library, name)
    return core
