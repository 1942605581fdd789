"""In the child: what OpenVINO says of each device, as text."""

from typing import Any

import numpy as np
import openvino as ov
import psutil
from openvino import opset13 as ops

_MEMORY_PROPERTIES = ("GPU_DEVICE_TOTAL_MEM_SIZE", "NPU_DEVICE_TOTAL_MEM_SIZE", "DEVICE_TOTAL_MEM_SIZE")
_AUTO_EXCLUDED = "NPU"
"""AUTO uses an NPU only where it is named, so it is left out of the list that asks for AUTO's own pick."""


def devices(core: ov.Core, request: dict[str, Any]) -> dict[str, Any]:
    """Every device with its readable properties; only those of `only` where it is given."""
    return {"devices": [_describe(core, name) for name in request.get("only") or core.available_devices]}


def auto_choice(core: ov.Core, request: dict[str, Any]) -> dict[str, Any]:
    """The device that AUTO picks among `devices` for a trivial model; empty where AUTO cannot be asked."""
    names = [name for name in request["devices"] if not name.startswith(_AUTO_EXCLUDED)]
    if not names:
        return {"device": ""}
    number = ops.parameter([1, 8], ov.Type.f32)
    model = ov.Model([ops.relu(ops.add(number, np.ones((1, 8), np.float32)))], [number], "auto")
    # Without the fallback the answer is the pick itself, not the CPU that would answer while it warms up.
    compiled = core.compile_model(model, "AUTO:" + ",".join(names), {"ENABLE_STARTUP_FALLBACK": False})
    picked = compiled.get_property("EXECUTION_DEVICES")
    return {"device": str(picked[0]).strip("()") if picked else ""}


def _describe(core: ov.Core, name: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, access in core.get_property(name, "SUPPORTED_PROPERTIES").items():
        if access != "WO" and key != "SUPPORTED_PROPERTIES":
            values[key] = _value(core, name, key)
    version = core.get_versions(name)[name]
    driver = next((str(value) for key, value in values.items() if key.endswith("DRIVER_VERSION")), "")
    own = next((int(values[key]) for key in _MEMORY_PROPERTIES if isinstance(values.get(key), int)), 0)
    # A CPU plugin has no property for it: its memory is the box's.
    memory = own or (psutil.virtual_memory().total if "CPU" in name else 0)
    return {
        "device": name,
        "full_name": _text(values.get("FULL_DEVICE_NAME", "")),
        "device_type": _text(values.get("DEVICE_TYPE", "")),
        "capabilities": [str(each) for each in values.get("OPTIMIZATION_CAPABILITIES") or ()],
        "memory_bytes": memory,
        "driver_version": driver or f"{version.description} {version.build_number}".strip(),
        "properties": {key: _text(value) for key, value in sorted(values.items()) if value is not None},
    }


def _value(core: ov.Core, name: str, key: str) -> Any:
    try:
        return core.get_property(name, key)
    except (RuntimeError, TypeError):
        return None  # some listed properties cannot be read on every device, or have no Python type


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_text(key)}={_text(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(each) for each in value)
    if isinstance(value, set | frozenset):
        return ", ".join(sorted(_text(each) for each in value))
    if isinstance(value, ov.Type):
        return str(value.get_type_name())
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else str(value)
