"""The process that moves bytes, so that a transfer never starves sync (contract: `controlplane.config`).

`python -m controlplane.bytes_process`, given LINESIDE_SETTINGS, listens on `agent_bytes` (mTLS: artifacts down,
samples up) and `operator_bytes` (token: uploads, contents of samples). It is a composition root, as `main` is of the
control process.
"""

import asyncio
import ctypes
import json
import os
import signal
import sys
import threading

import grpc
import structlog
import uvloop
from lineside.v1 import (
    sample_content_service_pb2_grpc,
    sample_upload_service_pb2_grpc,
    upload_service_pb2_grpc,
)

from controlplane import limits
from controlplane.app.artifacts import Artifacts
from controlplane.app.ports import BlobStore
from controlplane.app.revocations import Revocations
from controlplane.app.samples import Samples
from controlplane.app.uploads import Uploads
from controlplane.artifacts.blob_store import open_blob_store
from controlplane.artifacts.staging import UploadFolder
from controlplane.composition_datasets import bytes_services
from controlplane.config import SETTINGS_VARIABLE, Settings
from controlplane.domain.errors import DomainError
from controlplane.identity.peers import parse_peer
from controlplane.observability import BYTES_PROCESS_CANNOT_SERVE, configure_logging
from controlplane.rpc import server
from controlplane.rpc.artifacts import ArtifactServicer
from controlplane.rpc.authentication import AgentGuard, OperatorGuard
from controlplane.rpc.sample_content import SampleContentServicer
from controlplane.rpc.sample_upload import SampleUploadServicer
from controlplane.rpc.uploads import UploadServicer
from controlplane.store import SqlStore, open_store
from controlplane.system import SystemClock, SystemIds
from controlplane.tracing import open_tracing, traced

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

log = structlog.get_logger(__name__)


def keep_freed_memory() -> None:
    """Stop glibc from returning each 1 MiB message to the kernel and faulting it in again: three times the rate."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_TRIM_THRESHOLD, limits.MALLOC_TRIM_BYTES)
            mallopt(_M_MMAP_THRESHOLD, limits.MALLOC_MMAP_BYTES)


def end_with_parent() -> None:
    """Exit at once when standard input ends: the parent holds the other end. What is uploaded is on disk."""

    def wait() -> None:
        while os.read(0, 1 << 10):
            pass
        os._exit(0)

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


def agent_listener(settings: Settings, *, store: SqlStore, blobs: BlobStore) -> server.Listener:
    """What agents reach: their artifacts and their samples."""
    clock = SystemClock()
    artifacts = ArtifactServicer(Artifacts(store=store, blobs=blobs))
    samples = SampleUploadServicer(Samples(store=store, blobs=blobs, clock=clock))

    def register(running: grpc.aio.Server) -> None:
        artifacts.register(running)
        sample_upload_service_pb2_grpc.add_SampleUploadServiceServicer_to_server(samples, running)

    return server.Listener(
        name="agent_bytes",
        keys=server.KeyFiles.within(settings.pki_dir),
        mutual=True,
        guard=AgentGuard(store=store, revocations=Revocations(store=store, clock=clock), parse_peer=parse_peer),
        services=("lineside.v1.ArtifactService", "lineside.v1.SampleUploadService"),
        register=register,
        connection_age_max=min(limits.CONNECTION_AGE_MAX, settings.agent_certificate_ttl),
        connection_grace=limits.BYTES_CONNECTION_GRACE,
    )


def operator_listener(settings: Settings, *, store: SqlStore, blobs: BlobStore) -> server.Listener:
    """What operators reach: uploads, and contents of samples and datasets."""
    clock = SystemClock()
    uploads = UploadServicer(Uploads(staging=UploadFolder(settings.upload_dir), blobs=blobs))
    contents = SampleContentServicer(Samples(store=store, blobs=blobs, clock=clock))

    pictures = bytes_services(store=store, blobs=blobs, clock=clock, ids=SystemIds())

    def register(running: grpc.aio.Server) -> None:
        for _, add in pictures:
            add(running)
        upload_service_pb2_grpc.add_UploadServiceServicer_to_server(uploads, running)
        sample_content_service_pb2_grpc.add_SampleContentServiceServicer_to_server(contents, running)

    return server.Listener(
        name="operator_bytes",
        keys=server.KeyFiles.within(settings.pki_dir),
        mutual=False,
        guard=OperatorGuard(store=store, clock=clock),
        services=(
            "lineside.v1.UploadService",
            "lineside.v1.SampleContentService",
            *(name for name, _ in pictures),
        ),
        register=register,
        connection_grace=limits.BYTES_CONNECTION_GRACE,
    )


async def serve(settings: Settings) -> None:
    """Listen, say where on standard output, and serve until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    store = open_store(settings.database_url)
    blobs = open_blob_store(settings.artifact_url)
    tracing = open_tracing()
    agents = await server.start(
        traced(agent_listener(settings, store=store, blobs=blobs), tracing), settings.agent_bytes
    )
    operators = await server.start(
        traced(operator_listener(settings, store=store, blobs=blobs), tracing), settings.operator_bytes
    )
    bound = {"agent_bytes": str(agents.address), "operator_bytes": str(operators.address)}
    sys.stdout.write(json.dumps(bound) + "\n")
    sys.stdout.flush()
    await stopping.wait()
    await asyncio.gather(agents.stop(limits.SHUTDOWN_GRACE_SECONDS), operators.stop(limits.SHUTDOWN_GRACE_SECONDS))
    await store.close()
    if tracing is not None:
        tracing.close()


def main() -> None:
    settings = Settings.from_json(os.environ[SETTINGS_VARIABLE])
    configure_logging(level=settings.log_level)
    keep_freed_memory()
    os.nice(limits.BYTES_NICENESS)
    end_with_parent()
    try:
        uvloop.run(serve(settings))
    except (OSError, DomainError) as error:
        log.error(BYTES_PROCESS_CANNOT_SERVE, error=str(error))  # noqa: TRY400  # the text says it all
        sys.exit(1)


if __name__ == "__main__":
    main()
