"""The least that a Sync server can be: mTLS, one stream an agent, an answer to each message, nothing kept.

    python -m tests.bench.echo_server --pki FOLDER [--interval SECONDS]

It prints its port and serves until stdin ends. What the controller costs beyond this is ours.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import uvloop
from google.protobuf import duration_pb2
from lineside.v1 import fleet_service_pb2, fleet_service_pb2_grpc

OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 30_000),
]


class EchoServicer(fleet_service_pb2_grpc.FleetServiceServicer):
    def __init__(self, interval_seconds: int) -> None:
        self._interval = duration_pb2.Duration(seconds=interval_seconds)

    async def Sync(  # noqa: N802
        self, request_iterator: AsyncIterator[fleet_service_pb2.SyncRequest], context: object
    ) -> AsyncIterator[fleet_service_pb2.SyncResponse]:
        async for request in request_iterator:
            yield fleet_service_pb2.SyncResponse(
                sync_interval=self._interval, generation=request.observed_state.generation
            )

    async def RenewCertificate(  # noqa: N802
        self,
        request: fleet_service_pb2.RenewCertificateRequest,
        context: grpc.aio.ServicerContext[
            fleet_service_pb2.RenewCertificateRequest, fleet_service_pb2.RenewCertificateResponse
        ],
    ) -> fleet_service_pb2.RenewCertificateResponse:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no part of the measurement")


async def run(pki: Path, interval_seconds: int) -> None:
    server = grpc.aio.server(options=OPTIONS)
    fleet_service_pb2_grpc.add_FleetServiceServicer_to_server(EchoServicer(interval_seconds), server)
    shown = grpc.ssl_server_credentials(
        [((pki / "server.key").read_bytes(), (pki / "server.pem").read_bytes())],
        root_certificates=(pki / "ca.pem").read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port("127.0.0.1:0", shown)
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(grace=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pki", type=Path, required=True)
    parser.add_argument("--interval", type=int, default=0, help="told to the agents; by default they decide")
    options = parser.parse_args()
    uvloop.run(run(options.pki, options.interval))


if __name__ == "__main__":
    main()
