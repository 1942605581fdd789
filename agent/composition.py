"""Puts the agent together: the one place that picks implementations."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

from agent import limits
from agent.app import conditions, reporting
from agent.app.conditions import Conditions
from agent.app.executor import Executor
from agent.app.input_watch import InputWatch
from agent.app.metrics import new_registry
from agent.app.ports import Clock, Runtime
from agent.app.redaction import installed_redactors
from agent.app.renewal import Renewal
from agent.app.reporting import Delivery
from agent.app.sampling import SampleCollector
from agent.app.serving import Serving
from agent.app.shadowing import Shadows
from agent.app.sync_loop import SyncLoop
from agent.app.traffic import Traffic
from agent.app.vitals import Listening, Vitals, live_status
from agent.clock import SystemClock
from agent.config import AgentSettings, Endpoints, read_settings, settings_text
from agent.domain.errors import AgentError, EnrollmentError, Reason, RequestError, StateError
from agent.rpc.call_traces import NO_TRACES
from agent.rpc.controller import GrpcController
from agent.rpc.enrollment import enroll, parse_join_token
from agent.rpc.inference_grpc import start_grpc_server
from agent.rpc.inference_rest import start_rest_server
from agent.rpc.shared_memory import SharedMemory
from agent.rpc.vitals_rest import metrics_server, status_socket
from agent.runtime.openvino_runtime import OpenVinoRuntime
from agent.runtime.plugins import ENVIRONMENT_VARIABLE, parse_plugins
from agent.storage import durable
from agent.storage.artifact_cache import DiskArtifactCache
from agent.storage.baseline_file import JsonBaselineFile
from agent.storage.folder import AgentFolder
from agent.storage.identity import IdentityFiles
from agent.storage.result_log import DiskResultLog
from agent.storage.sample_spool import DiskSampleSpool
from agent.storage.state_file import JsonStateFile
from agent.supervision import supervise
from agent.tracing import TracedServing, Tracing, open_tracing

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What `run` is asked for."""

    grpc: str
    """Where the Open Inference Protocol listens over gRPC, "host:port"; port 0 takes a free one."""
    http: str
    """The same over REST."""
    spool_bytes: int = limits.SPOOL_BYTES_MAX
    """Bound of the result log, and again of the sample spool."""
    shared_memory: str = ""
    """Beginning of the keys of shared memory that applications may register; empty switches the extension off."""
    grpc_socket: Path | None = None
    """Unix socket on which gRPC is served too."""
    http_socket: Path | None = None
    """Unix socket on which REST is served too."""
    metrics: str = ""
    """Where Prometheus finds metrics, "host:port"; empty for nowhere."""


# --- enrolment ---


async def enroll_agent(
    folder: AgentFolder, *, controller: str, token: str, name: str, labels: Mapping[str, str]
) -> str:
    """Make the folder the agent's; return its resource name. Repeating it with the same name is harmless."""
    join_token = parse_join_token(token)
    identity = IdentityFiles(folder.pki, agent=name)
    _check_same_agent(folder, identity, name=name, ca_pem=join_token.ca_pem)
    csr_der = identity.first_request()
    enrolled = await enroll(controller, join_token, agent=name, labels=labels, csr_der=csr_der)
    identity.install_first(enrolled.certificate)
    try:
        _write_settings(folder, _settings(name, enrolled.endpoints))
    except OSError as error:
        raise StateError(
            f"cannot write {folder.settings}: {error.strerror}",
            field="--dir",
            remedy="free some disk or make the folder writable, then enrol again: no use of the token is lost",
            reason=Reason.STATE_UNWRITABLE,
        ) from error
    return enrolled.agent


def _check_same_agent(folder: AgentFolder, identity: IdentityFiles, *, name: str, ca_pem: bytes) -> None:
    """Raise EnrollmentError when the folder is another agent's or another controller's: what is spooled in it and what
    it should run would reach the wrong place."""
    if not folder.settings.exists():
        return
    settings = read_settings(folder.settings)
    if settings.agent != name:
        raise EnrollmentError(
            f"{folder.root} belongs to agents/{settings.agent}",
            field="--name",
            remedy=f"enrol as {settings.agent} again, or name another --dir",
        )
    known_ca_pem = identity.ca_pem()
    if known_ca_pem is not None and known_ca_pem.strip() != ca_pem.strip():
        raise EnrollmentError(
            f"{folder.root} belongs to a controller with another CA",
            field="--token",
            remedy="use a token of that controller, or name another --dir",
        )


def _settings(name: str, endpoints: Endpoints) -> AgentSettings:
    return AgentSettings(agent=name, controller=endpoints.api, fleet=endpoints.fleet, agent_bytes=endpoints.agent_bytes)


def _write_settings(folder: AgentFolder, settings: AgentSettings) -> None:
    durable.write_durably(folder.settings, settings_text(settings).encode())


# --- running ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """Everything that runs, put together and not started."""

    clock: Clock
    rng: random.Random
    serving: Serving
    executor: Executor
    sync_loop: SyncLoop
    renewal: Renewal
    controller: GrpcController
    result_log: DiskResultLog
    collector: SampleCollector
    evidence: Delivery[int]
    samples: Delivery[str]
    vitals: Vitals
    tracing: Tracing | None

    async def seal_regularly(self) -> None:
        await reporting.seal_regularly(self.result_log, self.clock)


def compose(folder: AgentFolder, options: RunOptions, *, runtime: Runtime | None = None) -> Agent:
    """Call within the event loop. Raises EnrollmentError (NOT_ENROLLED) or StateError."""
    settings = read_settings(folder.settings)
    certificates = IdentityFiles(folder.pki, agent=settings.agent)
    certificates.read()
    clock, rng = SystemClock(), random.Random()  # noqa: S311 - jitter and sampling, no secrets
    told = Conditions(clock)
    result_log = DiskResultLog(
        folder.results, clock=clock, bytes_max=options.spool_bytes, on_writable=_spool_teller(told)
    )
    sample_spool = DiskSampleSpool(folder.samples, clock=clock, bytes_max=options.spool_bytes)
    tracing = open_tracing(settings.agent)
    controller = _open_controller(folder, settings, certificates, tracing)
    samples = reporting.sample_delivery(sample_spool, controller, conditions=told, clock=clock, rng=rng)
    collector = _open_collector(
        folder, sample_spool, result_log, told=told, clock=clock, rng=rng, on_sample=samples.hurry
    )
    traffic = Traffic()
    shadows = Shadows(results=result_log, samples=collector, traffic=traffic, clock=clock)
    new_serving = Serving if tracing is None else partial(TracedServing, tracing.tracer)
    serving = new_serving(clock=clock, results=result_log, samples=collector, shadows=shadows, traffic=traffic)
    evidence = reporting.evidence_delivery(
        result_log, controller, conditions=told, clock=clock, rng=rng, policy_of=serving.result_policy
    )
    used_runtime = runtime or _open_runtime(folder)
    cache = DiskArtifactCache(folder.root, clock=clock)
    executor = Executor(
        runtime=used_runtime,
        serving=serving,
        cache=cache,
        controller=controller,
        state_file=JsonStateFile(folder.state),
        shadows=shadows,
        conditions=told,
        clock=clock,
        rng=rng,
    )
    sync_loop = _new_sync_loop(controller, executor, used_runtime, collector, told=told, clock=clock, rng=rng)
    for hurried in (evidence.hurry, samples.hurry, executor.hurry):
        sync_loop.subscribe(hurried)
    renewal = Renewal(certificates=certificates, controller=controller, conditions=told, clock=clock, rng=rng)
    vitals = Vitals(
        serving=serving,
        traffic=traffic,
        executor=executor,
        sync_loop=sync_loop,
        conditions=told,
        collector=collector,
        certificates=certificates,
        spools={"results": result_log, "samples": sample_spool},
        downloads=cache.counts,
        folder=folder.root,
    )
    return Agent(
        tracing=tracing,
        vitals=vitals,
        clock=clock,
        rng=rng,
        serving=serving,
        executor=executor,
        sync_loop=sync_loop,
        renewal=renewal,
        controller=controller,
        result_log=result_log,
        collector=collector,
        evidence=evidence,
        samples=samples,
    )


def _open_controller(
    folder: AgentFolder, settings: AgentSettings, certificates: IdentityFiles, tracing: Tracing | None
) -> GrpcController:
    return GrpcController(
        settings.endpoints,
        certificates,
        agent=settings.agent,
        on_endpoints=_endpoint_keeper(folder, settings),
        traces=tracing or NO_TRACES,
    )


def _new_sync_loop(
    controller: GrpcController,
    executor: Executor,
    runtime: Runtime,
    collector: SampleCollector,
    *,
    told: Conditions,
    clock: Clock,
    rng: random.Random,
) -> SyncLoop:
    return SyncLoop(
        controller=controller,
        executor=executor,
        runtime=runtime,
        conditions=told,
        clock=clock,
        rng=rng,
        sample_counts=collector.counts,
    )


def _open_collector(
    folder: AgentFolder,
    spool: DiskSampleSpool,
    log: DiskResultLog,
    *,
    told: Conditions,
    clock: Clock,
    rng: random.Random,
    on_sample: Callable[[], None],
) -> SampleCollector:
    return SampleCollector(
        spool,
        InputWatch(log, JsonBaselineFile(folder.samples), clock=clock, rng=rng),
        conditions=told,
        clock=clock,
        rng=rng,
        redactors=installed_redactors(),
        on_sample=on_sample,
    )


def _open_runtime(folder: AgentFolder) -> OpenVinoRuntime:
    plugins = parse_plugins(os.environ.get(ENVIRONMENT_VARIABLE, ""))
    return OpenVinoRuntime(compiled_folder=folder.compiled, plugins=plugins)


async def run_agent(
    folder: AgentFolder, options: RunOptions, stop: asyncio.Event, on_ready: Callable[[str, str], None]
) -> None:
    """Serve until `stop` is set. `on_ready` is given the addresses over gRPC and REST once they answer, and what
    served last serves again or has taken longer than a start should."""
    agent = compose(folder, options)
    await agent.executor.recall()
    async with (
        _servers(agent, options) as (grpc_address, http_address),
        _told_of(agent, folder, options, grpc=grpc_address, http=http_address),
    ):
        agent.collector.start()
        start = asyncio.create_task(agent.executor.start())
        await asyncio.wait({start}, timeout=limits.READY_SECONDS_MAX)
        on_ready(grpc_address, http_address)
        await start
        async with _loops(agent):
            await stop.wait()
            _log.info("stopping")
    await _deliver_last(agent)


@asynccontextmanager
async def _servers(agent: Agent, options: RunOptions) -> AsyncIterator[tuple[str, str]]:
    """Both inference servers, listening; closed at the end with what is under way answered first."""
    shared = SharedMemory(options.shared_memory)
    with _taken_addresses("--grpc", options.grpc):
        grpc_server, grpc_port = start_grpc_server(
            agent.serving,
            options.grpc,
            shared=shared,
            socket=options.grpc_socket,
            interceptors=() if agent.tracing is None else (agent.tracing.interceptor(),),
        )
    try:
        with _taken_addresses("--http", options.http):
            rest = await start_rest_server(
                agent.serving,
                options.http,
                shared=shared,
                socket=options.http_socket,
                middlewares=() if agent.tracing is None else (agent.tracing.middleware,),
            )
        try:
            http_port = rest.addresses[0][1]
            yield _with_port(options.grpc, grpc_port), _with_port(options.http, http_port)
        finally:
            await rest.cleanup()
    finally:
        stopped = grpc_server.stop(limits.SERVING_STOP_SECONDS_MAX)
        await asyncio.to_thread(stopped.wait)
        agent.serving.close()
        shared.close()


@asynccontextmanager
async def _told_of(
    agent: Agent, folder: AgentFolder, options: RunOptions, *, grpc: str, http: str
) -> AsyncIterator[None]:
    """Metrics where they are asked for, and the live status in the folder."""
    registry = new_registry(agent.vitals)
    async with AsyncExitStack() as stack:
        metrics = ""
        if options.metrics:
            with _taken_addresses("--metrics", options.metrics):
                metrics = await stack.enter_async_context(metrics_server(registry, options.metrics))
            _log.info("metrics_served", address=metrics)
        listening = Listening(
            pid=os.getpid(),
            start_time=agent.clock.now(),
            grpc=grpc,
            http=http,
            metrics=metrics,
            grpc_socket=str(options.grpc_socket or ""),
            http_socket=str(options.http_socket or ""),
            shared_memory=options.shared_memory,
        )
        status = status_socket(folder.status_socket, registry, lambda: live_status(agent.vitals, listening))
        await stack.enter_async_context(status)
        yield


@contextmanager
def _taken_addresses(field: str, address: str) -> Iterator[None]:
    """Turn what servers raise where they cannot bind into a RequestError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise RequestError(
            f"cannot listen on {address}: {error}", field=field, remedy="name a free address of this box, or port 0"
        ) from error


@asynccontextmanager
async def _loops(agent: Agent) -> AsyncIterator[None]:
    """Every loop, supervised; cancelled and ended at the end."""
    runs = {
        "executor": agent.executor.run,
        "sync": agent.sync_loop.run,
        "sealing": agent.seal_regularly,
        "evidence": agent.evidence.run,
        "samples": agent.samples.run,
        "renewal": agent.renewal.run,
    }
    tasks = [
        asyncio.create_task(supervise(name, run, clock=agent.clock, rng=agent.rng), name=name)
        for name, run in runs.items()
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _deliver_last(agent: Agent) -> None:
    """Deliver what is spooled, within the bound of a stop; what is left waits on disk for the next start."""
    await asyncio.to_thread(agent.collector.stop)
    await asyncio.to_thread(agent.result_log.seal, force=True)
    try:
        async with asyncio.timeout(limits.STOP_SECONDS_MAX):
            await agent.evidence.flush()
            await agent.samples.flush()
    except (TimeoutError, AgentError) as error:
        _log.info("spool_kept", why=str(error) or "the stop's time is over", batches=len(agent.result_log.pending()))
    finally:
        agent.result_log.close()
        await agent.controller.close()
        if agent.tracing is not None:
            await asyncio.to_thread(agent.tracing.close)


def _with_port(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"


def _spool_teller(told: Conditions) -> Callable[[str], None]:
    def tell(error: str) -> None:
        told.set(
            conditions.SPOOL_WRITABLE,
            holds=not error,
            reason="SpoolUnwritable" if error else "Written",
            message=f"{error}; free some disk: results are counted and not kept meanwhile" if error else "",
        )

    return tell


def _endpoint_keeper(folder: AgentFolder, settings: AgentSettings) -> Callable[[Endpoints], None]:
    """Remembers where the listeners are, so that the next start finds them at once."""

    def keep(found: Endpoints) -> None:
        _log.info("endpoints_learned", fleet=found.fleet, agent_bytes=found.agent_bytes)
        # A folder that cannot be written costs the next start one more question.
        with contextlib.suppress(OSError):
            _write_settings(folder, replace(settings, fleet=found.fleet, agent_bytes=found.agent_bytes))

    return keep
