"""`lineside-agent`: enrol a box, run its agent, look at its folder."""

import asyncio
import ctypes
import json
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from agent import limits
from agent.domain.errors import AgentError, RequestError

if TYPE_CHECKING:
    from agent.composition import RunOptions
    from agent.storage.folder import AgentFolder

DEFAULT_GRPC, DEFAULT_HTTP = "127.0.0.1:9001", "127.0.0.1:9000"
_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

app = App(
    name="lineside-agent",
    help="Runs models on this box, serves local applications, reports to the controller.",
    help_format="plaintext",
)

Folder = Annotated[Path, Parameter(name="--dir", help="The agent's folder; one agent, one folder.")]


@app.command
def enroll(
    *,
    directory: Folder,
    controller: Annotated[str, Parameter(help='The controller\'s API listener, "host:port".')],
    token: Annotated[str, Parameter(help="The join token, as `lineside tokens create` printed it.")],
    name: Annotated[str, Parameter(help="Id of this agent: lower-case letters, digits and hyphens.")],
    label: Annotated[
        Sequence[str], Parameter(negative=(), help="KEY=VALUE; may be repeated. The token's labels win.")
    ] = (),
) -> None:
    """Make this box an agent: its key is made here, the controller signs it.

    Repeating it with the same name is harmless. Example:

        lineside-agent enroll --dir /var/lib/lineside-agent --controller 10.0.0.5:7443 --token lsj1.eyJ... --name st-1
    """
    from agent.composition import enroll_agent
    from agent.storage.folder import AgentFolder, FolderLock

    _check_name(name)
    labels = _parse_labels(label)
    folder = AgentFolder(directory)
    folder.create()
    with FolderLock(folder):
        print(
            "enrolled",
            asyncio.run(enroll_agent(folder, controller=controller, token=token, name=name, labels=labels)),
        )


@app.command
def run(
    *,
    directory: Folder,
    grpc: Annotated[str, Parameter(help="Where applications reach the agent over gRPC.")] = DEFAULT_GRPC,
    http: Annotated[str, Parameter(help="Where applications reach the agent over REST.")] = DEFAULT_HTTP,
    grpc_socket: Annotated[Path | None, Parameter(help="A Unix socket where gRPC is served too.")] = None,
    http_socket: Annotated[Path | None, Parameter(help="A Unix socket where REST is served too.")] = None,
    shared_memory: Annotated[
        str,
        Parameter(
            help="Let applications hand over tensors in shared memory whose key begins with this, say lineside_,"
            " or with one of several that have commas between."
            " Off by default: whoever reaches the agent can then have it read and write these regions."
        ),
    ] = "",
    metrics: Annotated[
        str, Parameter(help="Where Prometheus scrapes /metrics, say 127.0.0.1:9090; nowhere unless given.")
    ] = "",
    allow_remote: Annotated[
        bool, Parameter(negative=(), help="Bind beyond loopback; inference has neither encryption nor login.")
    ] = False,
    spool_bytes: Annotated[
        int, Parameter(help="Bound of the results on disk, and again of the samples.")
    ] = limits.SPOOL_BYTES_MAX,
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Parameter(help="Least level that is logged.")
    ] = "INFO",
) -> None:
    """Run the agent of the folder until SIGTERM or SIGINT.

    Prints one line when it listens: `lineside-agent ready grpc=HOST:PORT http=HOST:PORT`. Example:

        lineside-agent run --dir /var/lib/lineside-agent --grpc 127.0.0.1:9001 --http 127.0.0.1:9000

    Metrics for Prometheus beside it:

        lineside-agent run --dir /var/lib/lineside-agent --metrics 127.0.0.1:9090
    """
    from agent.composition import RunOptions
    from agent.observability import configure_logging
    from agent.rpc.inference_address import check_loopback
    from agent.runtime import hung
    from agent.storage.folder import AgentFolder, FolderLock

    configure_logging(level=log_level)
    if not allow_remote:
        check_loopback(grpc)
        check_loopback(http)
        if metrics:
            check_loopback(metrics)
    if spool_bytes <= 0:
        raise RequestError(f"{spool_bytes} is no bound", field="--spool-bytes", remedy="give a number of bytes above 0")
    tune_allocator()
    folder = AgentFolder(directory)
    _check_exists(folder.root)
    with FolderLock(folder):
        options = RunOptions(
            grpc=grpc,
            http=http,
            spool_bytes=spool_bytes,
            shared_memory=shared_memory,
            grpc_socket=grpc_socket,
            http_socket=http_socket,
            metrics=metrics,
        )
        asyncio.run(_run_until_signal(folder, options))
    hung.leave_process()


@app.command
def status(
    *,
    directory: Folder,
    output: Annotated[Literal["table", "json"], Parameter(help="For people or for programs.")] = "table",
) -> None:
    """Show what the folder says: who the agent is, what served last, what waits to be delivered. Where the agent runs,
    it also says what serves now and how it stands with the controller.

    Example:

        lineside-agent status --dir /var/lib/lineside-agent --output json
    """
    from agent.status import read_status, status_table
    from agent.storage.folder import AgentFolder

    found = read_status(AgentFolder(directory))
    if output == "json":
        print(json.dumps(found, indent=1, sort_keys=True))
    else:
        status_table(found)


@app.command
def doctor(
    *,
    directory: Folder,
    grpc: Annotated[str, Parameter(help="Where `run` shall listen; looked at while no agent runs.")] = DEFAULT_GRPC,
    http: Annotated[str, Parameter(help="The same over REST.")] = DEFAULT_HTTP,
    spool_bytes: Annotated[int, Parameter(help="As `run` is told.")] = limits.SPOOL_BYTES_MAX,
    output: Annotated[Literal["table", "json"], Parameter(help="For people or for programs.")] = "table",
) -> None:
    """Look at the box, the folder and the way to the controller, and name the remedy of each fault. Changes nothing;
    may run beside the agent, best as the agent's user.

    The exit status is 1 where a check FAILs, else 0. Example:

        lineside-agent doctor --dir /var/lib/lineside-agent --output json
    """
    from dataclasses import asdict

    from rich.console import Console

    from agent.doctor.examination import Examination, print_findings
    from agent.doctor.finding import Grade, worst
    from agent.doctor.folder import Bounds
    from agent.observability import configure_logging
    from agent.storage.folder import AgentFolder

    configure_logging(level="ERROR")
    examination = Examination(
        folder=AgentFolder(directory), ports={"grpc": grpc, "http": http}, bounds=Bounds(spool_bytes=spool_bytes)
    )
    findings = tuple(examination.findings())
    if output == "json":
        print(json.dumps({"grade": worst(findings), "checks": [asdict(each) for each in findings]}, indent=1))
    else:
        print_findings(findings, Console())
    if worst(findings) is Grade.FAIL:
        raise SystemExit(1)


@app.command
def bench(
    *,
    directory: Folder,
    slot: Annotated[str, Parameter(help="The slot to measure; may be left out where one serves.")] = "",
    seconds: Annotated[float, Parameter(help="Length of the measurement of each path.")] = 5.0,
    in_flight: Annotated[int, Parameter(help="Requests at once.")] = 4,
    yes: Annotated[
        bool, Parameter(negative=(), help="Measure although the agent runs, and slow its line down.")
    ] = False,
    output: Annotated[Literal["table", "json"], Parameter(help="For people or for programs.")] = "table",
) -> None:
    """Measure what serving costs over OpenVINO itself: the slot's version on its device, bare, over gRPC and with
    tensors in shared memory, in turn.

    It serves the version by a server of its own, so that no result, sample or metric of the agent comes from a bench;
    but it takes the device from a line that runs, hence --yes. Example:

        lineside-agent bench --dir /var/lib/lineside-agent --slot solar --seconds 5 --in-flight 4
    """
    from agent.benchmark.bench import Bench, check_idle, print_bench
    from agent.storage.folder import AgentFolder

    if not limits.BENCH_SECONDS_MIN <= seconds <= limits.BENCH_SECONDS_MAX:
        bounds = f"{limits.BENCH_SECONDS_MIN} to {limits.BENCH_SECONDS_MAX:.0f}"
        raise RequestError(f"{seconds} s is not possible", field="--seconds", remedy=f"give {bounds}")
    if not 1 <= in_flight <= limits.BENCH_IN_FLIGHT_MAX:
        raise RequestError(
            f"{in_flight} is not possible", field="--in-flight", remedy=f"give 1 to {limits.BENCH_IN_FLIGHT_MAX}"
        )
    folder = AgentFolder(directory)
    _check_exists(folder.root)
    check_idle(folder, yes=yes)
    found = Bench(folder=folder, slot=slot, seconds=seconds, in_flight=in_flight).run()
    if output == "json":
        print(json.dumps(found, indent=1))
    else:
        print_bench(found)


def main() -> None:
    """Entry point. Expected failures are one line on standard error and exit status 1."""
    try:
        app()
    except AgentError as error:
        print(f"lineside-agent: {error.reason}: {error}", file=sys.stderr)
        raise SystemExit(1) from None


async def _run_until_signal(folder: "AgentFolder", options: "RunOptions") -> None:
    from agent.composition import run_agent

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run_agent(folder, options, stop, _print_ready)


def _print_ready(grpc_address: str, http_address: str) -> None:
    print(f"lineside-agent ready grpc={grpc_address} http={http_address}", flush=True)


def _check_exists(root: Path) -> None:
    if not root.is_dir():
        raise RequestError(f"{root} is no folder", field="--dir", remedy="run `lineside-agent enroll` on it first")


def _check_name(name: str) -> None:
    if not _ID.fullmatch(name):
        raise RequestError(
            f"{name!r} is no id",
            field="--name",
            remedy="use 1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit",
        )


def _parse_labels(texts: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise RequestError(f"{text!r} is no label", field="--label", remedy="write KEY=VALUE, as in station=1")
        labels[key] = value
    if len(labels) > limits.AGENT_LABELS_MAX:
        raise RequestError(f"{len(labels)} labels", field="--label", remedy=f"give at most {limits.AGENT_LABELS_MAX}")
    return labels


def tune_allocator() -> None:
    """Keep freed 1 MiB buffers instead of returning each to the system: page faults otherwise eat most of a download's
    speed. Both thresholds are needed; another C library than glibc has no such call."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
        mallopt(trim_threshold, 64 << 20)
        mallopt(mmap_threshold, 16 << 20)


if __name__ == "__main__":
    main()
