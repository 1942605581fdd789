"""The Runtime port on OpenVINO."""

import asyncio
import errno
import hashlib
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import openvino as ov
import structlog

from agent import limits
from agent.domain.artifact import ModelSignature
from agent.domain.device import (
    Candidates,
    Configuration,
    Device,
    DeviceMeasurement,
    Host,
    Parity,
    PerformanceHint,
    RuntimePolicy,
    candidates,
    implausible,
    worth_trying,
)
from agent.domain.errors import PrepareError, Reason
from agent.runtime.children import CHILD_COMMAND, ChildError, run_child
from agent.runtime.compile import CompileTarget, compile_target, one_line
from agent.runtime.compiled_folder import CompiledFolder
from agent.runtime.drivers import platform_stamp
from agent.runtime.golden import FOLDER as GOLDEN_FOLDER
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
        measured_seconds: float = limits.MEASURED_SECONDS_MAX,
        compiled_bytes: int = limits.COMPILED_BYTES_MAX,
    ) -> None:
        self._root = compiled_folder
        self._stamp = f"{ov.__version__} {platform_stamp(plugins)}"
        self._compiled = CompiledFolder(compiled_folder, version=self._stamp)
        self._compiled_bytes = compiled_bytes
        self._loaded: set[Path] = set()
        """Compiled models that this process has loaded: the next start needs them."""
        self._measured_seconds = measured_seconds
        self._seen: tuple[float, Sequence[Device]] | None = None
        """When the devices were looked at last, and what was seen."""
        self._look = asyncio.Lock()
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
        async with self._look:
            if self._seen is None or time.monotonic() - self._seen[0] >= limits.INVENTORY_AGE_SECONDS_MAX:
                found, failure = await self._enumerate()
                picked = await self._auto_choice([each.device for each in found])
                told = tuple(_told(each, picked=picked, failure=failure) for each in found)
                self._seen = (time.monotonic(), told)
            return self._seen[1]

    async def fingerprint(self) -> str:
        facts = [(each.device, each.full_name, each.driver_version) for each in await self.devices()]
        return hashlib.sha256(f"{self._stamp} {facts}".encode()).hexdigest()[:16]

    async def measure(
        self,
        folder: Path,
        signature: ModelSignature,
        policy: RuntimePolicy,
        *,
        without: frozenset[str] = frozenset(),
    ) -> Sequence[DeviceMeasurement]:
        found = await self._candidates(folder, policy, without)
        measured: list[DeviceMeasurement] = []
        begun = time.monotonic()
        for configuration in found.configurations:
            if not worth_trying(configuration, measured):
                continue
            if measured and time.monotonic() - begun >= self._measured_seconds:
                measured.append(_not_tried(configuration, self._measured_seconds))
                continue
            measured.append(
                await self._compile(folder, signature, policy.hint, configuration, seconds=limits.MEASURE_SECONDS)
            )
        return (*measured, *found.refused)

    async def load(
        self, folder: Path, signature: ModelSignature, policy: RuntimePolicy, configuration: Configuration
    ) -> OpenVinoModel:
        """Loads what a child has compiled; where that is gone or damaged (a disk, another OpenVINO or driver), a child
        compiles it once more first."""
        entry = self._compiled.entry(folder / signature.entry_path, configuration, policy.hint)
        if not await asyncio.to_thread(self._compiled.is_intact, entry):
            warmed = await self._compile(folder, signature, policy.hint, configuration, seconds=0.0)
            if not warmed.ok:
                raise PrepareError(f"{configuration}: {warmed.error}", field="device", reason=Reason.LOAD_FAILED)
        self._loaded.add(entry)
        target = CompileTarget(
            model=folder / signature.entry_path, configuration=configuration, hint=policy.hint, cache=entry
        )
        async with self._one_core:
            return await asyncio.to_thread(self._load, target, signature)

    async def prune(self) -> None:
        async with self._one_child:
            await asyncio.to_thread(self._prune)

    # --- in threads ---

    def _load(self, target: CompileTarget, signature: ModelSignature) -> OpenVinoModel:
        if self._core is None:
            self._core = open_core(self._plugins)
        device = target.configuration.device
        try:
            model = OpenVinoModel(compile_target(self._core, target), device=device, signature=signature)
        except RuntimeError as error:
            raise PrepareError(
                f"{target.configuration}: {one_line(error)}", field="device", reason=Reason.LOAD_FAILED
            ) from error
        self._compiled.touch(target.cache)
        return model

    def _prune(self) -> None:
        self._compiled.prune(bytes_max=self._compiled_bytes, keep=self._loaded)

    def _read_host(self) -> Host:
        # Nothing is made for it: the folder may be read-only, and the controller should hear of the box all the same.
        on_disk = self._root if self._root.is_dir() else self._root.parent
        return read_host(on_disk, openvino_version=ov.__version__)

    # --- in children ---

    async def _candidates(self, folder: Path, policy: RuntimePolicy, without: frozenset[str]) -> Candidates:
        devices = [device for device in await self.devices() if device.device not in without]
        found = candidates(
            devices,
            policy,
            has_golden=(folder / GOLDEN_FOLDER).is_dir(),
            cpu_count=os.cpu_count() or 1,
            configurations_max=limits.MEASURED_CONFIGURATIONS_MAX,
        )
        left = tuple(each for each in found.configurations if not any(each.uses(lost) for lost in without))
        return Candidates(configurations=left, refused=found.refused)

    async def _compile(
        self,
        folder: Path,
        signature: ModelSignature,
        hint: PerformanceHint,
        configuration: Configuration,
        *,
        seconds: float,
    ) -> DeviceMeasurement:
        model = folder / signature.entry_path
        entry = self._compiled.entry(model, configuration, hint)
        async with self._one_child:
            with _told_as_prepare_error(self._root):
                await asyncio.to_thread(self._prune)
                cache = await asyncio.to_thread(self._compiled.begin, entry)
            golden = folder / GOLDEN_FOLDER
            request = {
                "command": "measure",
                "plugins": dict(self._plugins),
                "model": str(model),
                "device": configuration.device,
                "streams": configuration.streams,
                "precision": configuration.precision,
                "hint": hint.value,
                "cache": str(cache),
                "seconds": seconds,
                "golden": str(golden) if golden.is_dir() else "",
                "inputs": [spec.name for spec in signature.inputs],
                "outputs": [spec.name for spec in signature.outputs],
            }
            begun = time.monotonic()
            try:
                answer = await run_child(request, timeout_seconds=self._prepare_seconds, command=self._child_command)
                measured = _measurement(
                    configuration, answer, elapsed_seconds=time.monotonic() - begun, seconds=seconds
                )
            except ChildError as error:
                measured = _failed(configuration, error.reason, str(error))
            if not measured.ok:
                await asyncio.to_thread(self._compiled.abandon, entry)
                return measured
            with _told_as_prepare_error(self._root):
                await asyncio.to_thread(self._compiled.finish, entry, model=model)
        return measured

    async def _ask(self, request: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        async with self._one_child:
            return await run_child(
                {**request, "plugins": dict(self._plugins)}, timeout_seconds=seconds, command=self._child_command
            )

    async def _enumerate(self) -> tuple[Sequence[Device], str]:
        try:
            return _devices(await self._ask({"command": "devices"}, self._inventory_seconds)), ""
        except ChildError as error:
            failure = str(error)
            _log.error("device_enumeration_failed", reason=error.reason, error=failure)
        try:
            found = _devices(await self._ask({"command": "devices", "only": [_CPU]}, self._inventory_seconds))
        except ChildError as error:
            _log.error("device_enumeration_failed", device=_CPU, reason=error.reason, error=str(error))
            return (), failure
        return found, failure

    async def _auto_choice(self, names: Sequence[str]) -> str:
        try:
            answer = await self._ask({"command": "auto", "devices": list(names)}, self._inventory_seconds)
        except ChildError as error:
            _log.warning("auto_choice_failed", reason=error.reason, error=str(error))
            return ""
        return str(answer.get("device", ""))


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


def _devices(answer: Mapping[str, Any]) -> Sequence[Device]:
    """Raises ChildError where the answer is not what a probe says."""
    try:
        return tuple(
            Device(
                device=str(each["device"]),
                full_name=str(each["full_name"]),
                device_type=str(each["device_type"]),
                capabilities=tuple(str(name) for name in each["capabilities"]),
                memory_bytes=max(0, int(each["memory_bytes"])),
                driver_version=str(each["driver_version"]),
                properties=MappingProxyType({str(key): str(value) for key, value in each["properties"].items()}),
            )
            for each in answer["devices"]
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ChildError(Reason.PROBE_IMPLAUSIBLE, f"the probe's answer is none: {error!r}") from error


def _told(device: Device, *, picked: str, failure: str) -> Device:
    """The device as it is reported."""
    properties = {**device.properties, "ENUMERATION_FAILURE": failure} if failure else device.properties
    return replace(device, auto_choice=device.device == picked, properties=MappingProxyType(dict(properties)))


def _measurement(
    configuration: Configuration, answer: Mapping[str, Any], *, elapsed_seconds: float, seconds: float
) -> DeviceMeasurement:
    """What the child says, unless it cannot be true."""
    try:
        measured = DeviceMeasurement(
            device=configuration.device,
            ok=True,
            streams=configuration.streams,
            precision=configuration.precision,
            latency_ms_p50=float(answer["latency_ms_p50"]),
            latency_ms_p99=float(answer["latency_ms_p99"]),
            throughput_per_second=float(answer["throughput_per_second"]),
            compile_seconds=float(answer["compile_seconds"]),
            memory_bytes=int(answer["memory_bytes"]),
            streams_used=int(answer["streams_used"]),
            parity=Parity(answer["parity"]),
            difference=float(answer["difference"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return _failed(configuration, Reason.PROBE_IMPLAUSIBLE, f"the probe's answer is none: {error!r}")
    if measured.parity is Parity.FAILED:
        difference = measured.difference if math.isfinite(measured.difference) else 0.0
        text = f"differs from the golden outputs by {difference:.2g}: {answer.get('mismatch', '')}"
        failed = _failed(configuration, Reason.PARITY_FAILED, text[: limits.ERROR_CHARS_MAX])
        return replace(failed, parity=Parity.FAILED, difference=difference)
    why = (
        ""
        if not seconds
        else implausible(measured, elapsed_seconds=elapsed_seconds, requests_max=limits.INFER_REQUESTS_MAX)
    )
    if why:
        return _failed(configuration, Reason.PROBE_IMPLAUSIBLE, f"the probe reported impossible numbers: {why}")
    return measured


def _failed(configuration: Configuration, reason: Reason, error: str) -> DeviceMeasurement:
    return DeviceMeasurement(
        device=configuration.device,
        ok=False,
        streams=configuration.streams,
        precision=configuration.precision,
        error=error,
        failure=reason,
    )


def _not_tried(configuration: Configuration, seconds: float) -> DeviceMeasurement:
    return DeviceMeasurement(
        device=configuration.device,
        ok=False,
        streams=configuration.streams,
        precision=configuration.precision,
        error=f"not tried: the others took {seconds:g} s, which is as long as a choice may take",
    )
