"""`serve`: everything listens, everything runs, and everything stops in order."""

import asyncio
import gc
import resource
import signal
import socket
import sys
from collections.abc import Coroutine
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import structlog

from controlplane import limits, observability
from controlplane.app.tokens import adopt_operator_token
from controlplane.composition import Parts, advertise, api_listener, compose, fleet_listener, led_jobs
from controlplane.config import Address, Settings
from controlplane.folder import OperatorFile, reachable
from controlplane.jobs import start_jobs
from controlplane.metrics_endpoint import ControllerMetrics, serve_metrics
from controlplane.rpc import server
from controlplane.supervision import BytesProcess
from controlplane.tracing import open_tracing, traced

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Where everything listens."""

    api: Address
    fleet: Address
    agent_bytes: Address
    operator_bytes: Address

    def __str__(self) -> str:
        return f"api={self.api} fleet={self.fleet} agent_bytes={self.agent_bytes} operator_bytes={self.operator_bytes}"


def raise_open_files() -> None:
    """Take as many open files as the system lets us have: an agent needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < limits.OPEN_FILES_MIN:
        log.warning(observability.FEW_OPEN_FILES, soft=soft, hard=hard, wanted=limits.OPEN_FILES_MIN)


def stop_collector() -> None:
    """What lives by now lives on, and the interpreter looks for no cycles by itself."""
    gc.collect()
    gc.freeze()
    gc.disable()


async def collect_garbage() -> None:
    """Look for cycles among what is new, so often that it is little, and among everything very seldom. Left to itself
    the interpreter looks after a number of net allocations: where each report replaces the one before that is late, and
    then among so much that all streams wait for a third of a second."""
    stop_collector()
    loop = asyncio.get_running_loop()
    full_seconds = loop.time() + limits.GARBAGE_FULL_SECONDS
    while True:
        await asyncio.sleep(limits.GARBAGE_SECONDS)
        if loop.time() < full_seconds:
            gc.collect(1)
        else:
            gc.collect()
            full_seconds = loop.time() + limits.GARBAGE_FULL_SECONDS


class Background:
    """Tasks that run as long as the process does. One that fails ends the process: half a controller is worse than
    a restart."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Run `work` until `stop`."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._note)
        self._tasks.append(task)

    async def stop(self) -> None:
        """Cancel everything, wait for it, and raise what failed before."""
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def _note(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error(observability.TASK_FAILED, task=task.get_name(), exc_info=error)
            self._stopping.set()


async def serve(settings: Settings, *, fall_back: frozenset[str], metrics: Address | None = None) -> None:
    """Serve until SIGTERM or SIGINT. `fall_back` names the listeners that may take any free port when theirs is
    taken; `metrics` is where Prometheus scrapes, None for nowhere. Raises OSError for a port that is taken,
    StorageError, ChildFailedError."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        parts = compose(settings, measure=metrics is not None)
        stack.push_async_callback(parts.database.close)
        await parts.database.connect()
        await _adopt_operator(parts)
        background = Background(stopping)
        stack.push_async_callback(background.stop)
        bytes_process = await BytesProcess.start(await _settle_ports(settings, fall_back))
        stack.push_async_callback(bytes_process.stop)
        tracing = open_tracing()
        if tracing is not None:
            stack.callback(tracing.close)
        fleet = await server.bind(
            traced(fleet_listener(parts), tracing), settings.fleet, fall_back="fleet" in fall_back
        )
        api = await server.bind(traced(api_listener(parts), tracing), settings.api)
        stack.push_async_callback(_stop, fleet, api)
        bound = Bound(
            api=api.address,
            fleet=fleet.address,
            agent_bytes=bytes_process.agent_bytes,
            operator_bytes=bytes_process.operator_bytes,
        )
        _tell_endpoints(parts, bound)
        background.start(collect_garbage(), name="garbage")
        background.start(parts.observations.run(), name="observations")
        background.start(_renew_server_certificate(parts), name="server_certificate")
        background.start(bytes_process.supervise(), name="bytes_process")
        background.start(parts.leadership.run(), name="leadership")
        if parts.bridge is not None:
            background.start(parts.bridge.run(), name="notices")
        jobs = start_jobs(
            leadership=parts.leadership,
            rollouts=parts.led_rollouts,
            convergence=parts.led_convergence,
            clock=parts.clock,
            more=led_jobs(parts),
            timed=parts.meter.timed_job,
            turn=parts.telling.wait,
        )
        stack.callback(jobs.shutdown, wait=False)
        if metrics is not None:
            stack.enter_context(_metrics(parts, metrics))
        await fleet.serve()
        await api.serve()
        _announce(bound)
        await stopping.wait()
        log.info(observability.STOPPING)
        await background.stop()


def _metrics(parts: Parts, address: Address) -> AbstractContextManager[None]:
    collector = ControllerMetrics(
        meter=parts.meter, fleet=parts.fleet, observations=parts.observations, leadership=parts.leadership
    )
    parts.meter.registry.register(collector)
    return serve_metrics(parts.meter.registry, address)


async def _adopt_operator(parts: Parts) -> None:
    """The first operator's token is good whichever database is served."""
    stored = OperatorFile.read(parts.settings.operator_file)
    if stored is not None:
        await adopt_operator_token(
            stored.token, store=parts.store, clock=parts.clock, ids=parts.ids, description="operator.toml"
        )


async def _settle_ports(settings: Settings, fall_back: frozenset[str]) -> Settings:
    """Return the settings with port 0 for the bytes process's listeners that may fall back and have to."""
    if "agent_bytes" in fall_back and not await _is_free(settings.agent_bytes):
        settings = replace(settings, agent_bytes=settings.agent_bytes.with_port(0))
    if "operator_bytes" in fall_back and not await _is_free(settings.operator_bytes):
        settings = replace(settings, operator_bytes=settings.operator_bytes.with_port(0))
    return settings


async def _is_free(address: Address) -> bool:
    """Whether the port can be bound, now or as soon as a killed predecessor's child has let go of it."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limits.BIND_RETRY_SECONDS
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    while True:
        try:
            with socket.create_server((address.host, address.port), family=family):
                return True
        except OSError:
            if loop.time() >= deadline:
                return False
        await asyncio.sleep(limits.BIND_RETRY_INTERVAL_SECONDS)


def _tell_endpoints(parts: Parts, bound: Bound) -> None:
    """Fill in what clients are told, and operator.toml where the controller has moved."""
    endpoints = parts.endpoints
    endpoints.api = advertise(bound.api, api=bound.api)
    endpoints.fleet = advertise(bound.fleet, api=bound.api)
    endpoints.agent_bytes = advertise(bound.agent_bytes, api=bound.api)
    endpoints.operator_bytes = advertise(bound.operator_bytes, api=bound.api)
    path = parts.settings.operator_file
    stored = OperatorFile.read(path)
    if stored is not None and (moved := reachable(stored.controller, bound.api)) != stored.controller:
        replace(stored, controller=moved).write(path)


def _announce(bound: Bound) -> None:
    log.info(
        observability.SERVING,
        api=str(bound.api),
        fleet=str(bound.fleet),
        agent_bytes=str(bound.agent_bytes),
        operator_bytes=str(bound.operator_bytes),
    )
    sys.stdout.write(f"lineside-controlplane ready {bound}\n")
    sys.stdout.flush()


async def _renew_server_certificate(parts: Parts) -> None:
    """Issue the server's certificate anew before it expires; listeners take it up by themselves."""
    while True:
        await asyncio.sleep(limits.SERVER_CERTIFICATE_CHECK_SECONDS)
        parts.authority.ensure_server_certificate(listen_hosts(parts.settings), now=parts.clock.now())


def listen_hosts(settings: Settings) -> frozenset[str]:
    """The hosts that the server's certificate has to name."""
    listeners = (settings.api, settings.fleet, settings.agent_bytes, settings.operator_bytes)
    return frozenset(address.host for address in listeners if not address.is_wildcard)


async def _stop(fleet: server.Running, api: server.Running) -> None:
    # Sync streams have no end of their own, so waiting for them is of no use.
    await asyncio.gather(fleet.stop(limits.FLEET_GRACE_SECONDS), api.stop(limits.SHUTDOWN_GRACE_SECONDS))
