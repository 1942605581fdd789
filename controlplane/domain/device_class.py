"""Device classes: agents on which a model is expected to behave alike.

A class says what the box computes with: its architecture and the kinds of its devices, each with what it can do. Two
GPUs of one kind are one kind; names and memory do not matter.
"""

from functools import lru_cache

from controlplane.domain.agent_memo import AgentMemo
from controlplane.domain.inventory import AgentRecord

UNKNOWN = "unknown"
"""Of an agent that has not told its devices yet."""
KINDS_MAX = 1024
"""Kinds whose names are kept: the boxes of a fleet have a few, and a tick asks for each agent's."""


def device_class(record: AgentRecord) -> str:
    """Return the agent's class, for example "x86_64/CPU(BF16,FP32,INT8)+GPU(FP16,FP32)"; UNKNOWN before its first
    sync."""
    return _CLASSES(record)


def _find_class(record: AgentRecord) -> str:
    observation = record.observation
    if observation is None or not observation.devices:
        return UNKNOWN
    architecture = observation.host.architecture if observation.host is not None else ""
    kinds = sorted({_kind(device.device, device.capabilities) for device in observation.devices})
    return f"{architecture or UNKNOWN}/{'+'.join(kinds)}"


@lru_cache(maxsize=KINDS_MAX)
def _kind(device: str, capabilities: tuple[str, ...]) -> str:
    name = device.partition(".")[0].upper()
    return f"{name}({','.join(sorted(set(capabilities)))})"


_CLASSES = AgentMemo(_find_class)
