"""What the agent knows of itself while it runs, for whoever looks: metrics and the live status read it, and nothing
else does. Reading takes no lock that the serving path waits for longer than a copy of some counters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from agent.app.conditions import Conditions
from agent.app.executor import Executor
from agent.app.ports import Certificates
from agent.app.sampling import SampleCollector
from agent.app.served import Statistics
from agent.app.serving import Serving
from agent.app.sync_loop import SyncLoop
from agent.app.traffic import Traffic
from agent.domain.slot import ObservedSlot, SampleCounts


class SpoolCounts(Protocol):
    """What waits on disk."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def dropped(self) -> int:
        """Items since the start that the disk or the bound left no room for."""
        ...

    def pending(self) -> Sequence[Any]: ...


class Downloads(Protocol):
    """Downloads since the start."""

    received_bytes: int
    complete: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """Use it within the agent's loop: executor and sync loop are not for other threads."""

    serving: Serving
    traffic: Traffic
    executor: Executor
    sync_loop: SyncLoop
    conditions: Conditions
    collector: SampleCollector
    certificates: Certificates
    spools: Mapping[str, SpoolCounts]
    """`results` and `samples`."""
    downloads: Downloads
    folder: Path
    """On the file system whose free bytes count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where a running agent answers; empty where it does not."""

    pid: int
    start_time: datetime
    grpc: str
    http: str
    metrics: str = ""
    grpc_socket: str = ""
    http_socket: str = ""
    shared_memory: str = ""
    """Beginning of the keys of shared memory that applications may register."""


def live_status(vitals: Vitals, listening: Listening) -> dict[str, Any]:
    """What `lineside-agent status` shows of a running agent, as JSON takes it."""
    return {
        "listening": {**asdict(listening), "start_time": listening.start_time.isoformat()},
        "requests_in_progress": vitals.traffic.requests,
        "slots": _slots(vitals),
        "sync": asdict(vitals.sync_loop.status()),
        "devices": [
            {"device": device.device, "name": device.full_name, "driver": device.driver_version}
            for device in vitals.sync_loop.devices
        ],
        "conditions": [
            {
                "type": each.type,
                "state": each.state,
                "reason": each.reason,
                "message": each.message,
                "transition_time": each.transition_time.isoformat(),
            }
            for each in vitals.conditions.all()
        ],
        "spool": {
            name: {"waiting": len(spool.pending()), "size_bytes": spool.size_bytes, "dropped": spool.dropped}
            for name, spool in vitals.spools.items()
        },
        "samples": _samples(vitals.collector.counts()),
    }


def _samples(counts: SampleCounts) -> dict[str, Any]:
    return {
        "kept": counts.kept_total,
        "kept_by_reason": dict(counts.kept),
        "skipped": dict(counts.skipped),
        "waiting": counts.waiting,
        "waiting_bytes": counts.waiting_bytes,
    }


def _slots(vitals: Vitals) -> list[dict[str, Any]]:
    statistics = {each.model.slot: each for each in vitals.serving.statistics()}
    return [_slot(slot, statistics.get(slot.slot)) for slot in vitals.executor.observed()]


def _slot(slot: ObservedSlot, counts: Statistics | None) -> dict[str, Any]:
    mean_ms = 1e3 * counts.total_seconds / counts.requests if counts is not None and counts.requests else None
    return {
        "slot": slot.slot,
        "state": slot.state,
        "target_version": slot.target_version,
        "serving_version": slot.serving_version,
        "last_known_good": slot.last_known_good,
        "device": slot.device_choice.device if slot.device_choice is not None else "",
        "device_reason": slot.device_choice.reason if slot.device_choice is not None else "",
        "prefetched_version": slot.prefetched_version,
        "shadow_version": slot.shadow.candidate_version if slot.shadow is not None else 0,
        "failure": slot.failure_message,
        "requests": counts.requests if counts is not None else 0,
        "inferences": counts.inferences if counts is not None else 0,
        "failed": counts.failed if counts is not None else 0,
        "request_ms_mean": mean_ms,
        "last_time": counts.last_time.isoformat() if counts is not None and counts.last_time is not None else "",
    }
