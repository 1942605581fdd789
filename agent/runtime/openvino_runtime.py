"""The Runtime port on OpenVINO."""

import asyncio
import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import openvino as ov
import structlog

from agent import limits
from agent.domain.artifact import ModelSignature
from agent.domain.device import Device, DeviceMeasurement, Host, RuntimePolicy, eligible_devices, missing_devices
from agent.domain.errors import PrepareError, Reason
from agent.runtime.children import CHILD_COMMAND, ChildError, run_child
from agent.runtime.compile import compile_target, one_line, target_of
from agent.runtime.compiled_folder import CompiledFolder
from agent.runtime.host import read_host
from agent.runtime.infer import OpenVinoModel
from agent.runtime.plugins import open_core

_log = structlog.get_logger()
_CPU = "CPU"


class OpenVinoRuntime:
    """One Core for this process, opened at the first load; children for everything that can kill one.

    Children run one after another: two at once would measure each other.
    """

    def __init__(
        self,
        *,
        compiled_folder: Path,
        plugins: Mapping[str, str] = MappingProxyType({}),
        child_command: Sequence[str] = CHILD_COMMAND,
        prepare_seconds: float = limits.PREPARE_SECONDS_MAX,
        inventory_seconds: float = limits.INVENTORY_SECONDS_MAX,
    ) -> None:
        self._root = compiled_folder
        self._compiled = CompiledFolder(compiled_folder, openvino_version=ov.__version__)
        self._plugins = plugins
        self._child_command = child_command
        self._prepare_seconds = prepare_seconds
        self._inventory_seconds = inventory_seconds
        self._one_child = asyncio.Lock()
        self._one_core = asyncio.Lock()
        self._core: ov.Core | None = None

    async def host(self) -> Host:
        return await asyncio.to_thread(self._read_host)

    async def devices(self) -> Sequence[Device]:
        """Every device. Where enumeration itself fails, the CPU alone, with the failure among its properties."""
        found, failure = await self._enumerate()
        picked = await self._auto_choice([each["device"] for each in found])
        return tuple(_device(each, picked=picked, failure=failure) for each in found)

    async def measure(
        self, folder: Path, signature: ModelSignature, policy: RuntimePolicy
    ) -> Sequence[DeviceMeasurement]:
        names = [str(each["device"]) for each in (await self._enumerate())[0]]
        measured = [
            await self._compile(folder, signature, policy, device, seconds=limits.MEASURE_SECONDS)
            for device in eligible_devices(names, policy)
        ]
        missing = [
            DeviceMeasurement(
                device=device,
                ok=False,
                error=f"not on this box, which has {', '.join(names)}",
                failure=Reason.DEVICE_NOT_FOUND,
            )
            for device in missing_devices(names, policy)
        ]
        return (*measured, *missing)

    async def load(self, folder: Path, signature: ModelSignature, policy: RuntimePolicy, device: str) -> OpenVinoModel:
        """Loads what a child has compiled; where that is gone or damaged (a disk, another OpenVINO), a child compiles
        it once more first."""
        entry = self._entry(folder, signature, policy, device)
        if not await asyncio.to_thread(self._compiled.is_intact, entry):
            warmed = await self._compile(folder, signature, policy, device, seconds=0.0)
            if not warmed.ok:
                raise PrepareError(f"{device}: {warmed.error}", field="device", reason=Reason.LOAD_FAILED)
        async with self._one_core:
            return await asyncio.to_thread(self._load, folder, signature, policy, device)

    # --- in threads ---

    def _load(self, folder: Path, signature: ModelSignature, policy: RuntimePolicy, device: str) -> OpenVinoModel:
        if self._core is None:
            self._core = open_core(self._plugins)
        target = target_of(folder, signature, policy, device, self._entry(folder, signature, policy, device))
        try:
            return OpenVinoModel(compile_target(self._core, target), device=device, signature=signature)
        except RuntimeError as error:
            raise PrepareError(f"{device}: {one_line(error)}", field="device", reason=Reason.LOAD_FAILED) from error

    def _read_host(self) -> Host:
        # Nothing is made for it: the folder may be read-only, and the controller should hear of the box all the same.
        on_disk = self._root if self._root.is_dir() else self._root.parent
        return read_host(on_disk, openvino_version=ov.__version__)

    # --- in children ---

    async def _compile(
        self, folder: Path, signature: ModelSignature, policy: RuntimePolicy, device: str, *, seconds: float
    ) -> DeviceMeasurement:
        entry = self._entry(folder, signature, policy, device)
        async with self._one_child:
            with _told_as_prepare_error(self._root):
                await asyncio.to_thread(self._compiled.prune)
                cache = await asyncio.to_thread(self._compiled.begin, entry)
            target = target_of(folder, signature, policy, device, cache)
            request = {
                "command": "measure",
                "plugins": dict(self._plugins),
                "model": str(target.model),
                "device": device,
                "hint": target.hint,
                "precision": target.precision,
                "cache": str(cache),
                "seconds": seconds,
            }
            try:
                answer = await run_child(request, timeout_seconds=self._prepare_seconds, command=self._child_command)
            except ChildError as error:
                await asyncio.to_thread(self._compiled.abandon, entry)
                return DeviceMeasurement(device=device, ok=False, error=str(error), failure=error.reason)
            with _told_as_prepare_error(self._root):
                await asyncio.to_thread(self._compiled.finish, entry, model=target.model)
        return DeviceMeasurement(
            device=device,
            ok=True,
            latency_ms_p50=answer["latency_ms_p50"],
            throughput_per_second=answer["throughput_per_second"],
            compile_seconds=answer["compile_seconds"],
        )

    async def _ask(self, request: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        async with self._one_child:
            return await run_child(
                {**request, "plugins": dict(self._plugins)}, timeout_seconds=seconds, command=self._child_command
            )

    async def _enumerate(self) -> tuple[Sequence[Mapping[str, Any]], str]:
        try:
            return (await self._ask({"command": "devices"}, self._inventory_seconds))["devices"], ""
        except ChildError as error:
            failure = str(error)
            _log.error("device_enumeration_failed", reason=error.reason, error=failure)
        try:
            found = await self._ask({"command": "devices", "only": [_CPU]}, self._inventory_seconds)
        except ChildError as error:
            _log.error("device_enumeration_failed", device=_CPU, reason=error.reason, error=str(error))
            return (), failure
        return found["devices"], failure

    async def _auto_choice(self, names: Sequence[str]) -> str:
        try:
            answer = await self._ask({"command": "auto", "devices": list(names)}, self._inventory_seconds)
        except ChildError as error:
            _log.warning("auto_choice_failed", reason=error.reason, error=str(error))
            return ""
        return str(answer["device"])

    def _entry(self, folder: Path, signature: ModelSignature, policy: RuntimePolicy, device: str) -> Path:
        return self._compiled.entry(
            folder / signature.entry_path,
            device=device,
            hint=policy.hint.value,
            precision=policy.inference_precision,
        )


@contextmanager
def _told_as_prepare_error(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise PrepareError(
            f"cannot keep what is compiled in {root}: {error.strerror}",
            remedy="free some disk on the agent's box" if full else "make the agent's folder writable",
            reason=Reason.DISK_FULL if full else Reason.STATE_UNWRITABLE,
        ) from error


def _device(found: Mapping[str, Any], *, picked: str, failure: str) -> Device:
    properties = dict(found["properties"])
    if failure:
        properties["ENUMERATION_FAILURE"] = failure
    return Device(
        device=found["device"],
        full_name=found["full_name"],
        device_type=found["device_type"],
        capabilities=tuple(found["capabilities"]),
        memory_bytes=found["memory_bytes"],
        driver_version=found["driver_version"],
        auto_choice=found["device"] == picked,
        properties=MappingProxyType(properties),
    )
