"""What comes back from the line, into a controller: samples against the same files put to nginx by curl over TLS and
written to the disk with fsync; results a second, and bytes a result.

Each round sends the same samples through the agent's bytes listener, eight at a time, with curl's eight at a time and
with the plain disk in turn. The controller checks each digest and is durable before it answers; nginx is neither.
"""

import asyncio
import hashlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc.aio
import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from lineside.v1 import (
    evidence_service_pb2,
    evidence_service_pb2_grpc,
    sample_pb2,
    sample_upload_service_pb2,
    sample_upload_service_pb2_grpc,
)
from PIL import Image

from agent.app.evidence import result_message
from agent.app.result_columns import result_files
from agent.domain.result import LabelScore, Outcome, Result
from examples.solar.fleet import Fleet
from tests.bench import nginx
from tests.bench.report import Row, alone, compare, publish
from tests.bench.simulated_agents import OPTIONS, SERVER_NAME, credentials, enroll

ROUNDS = 4
AT_ONCE = 8
SAMPLES = 200
SIDE = 300
"""Of a grey picture, as the solar cells are: 90 kB of noise."""
BATCHES = 60
BATCH_RESULTS = 4_000
MEGABYTE = 1e6


def pictures(folder: Path, rng: np.random.Generator) -> Sequence[Path]:
    """Samples that nobody has seen, as PNG."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number}.png" for number in range(SAMPLES)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)).save(path)
    return paths


def sample_request(name: str, path: Path) -> sample_upload_service_pb2.UploadSampleRequest:
    content = path.read_bytes()
    now = Timestamp(seconds=1_772_366_400)
    return sample_upload_service_pb2.UploadSampleRequest(
        sample_id=name,
        sample=sample_pb2.Sample(
            capture_time=now,
            reason=sample_pb2.Sample.REASON_RANDOM,
            result=result_message(result(0, datetime(2026, 3, 1, 12, tzinfo=UTC))),
            content_type="image/png",
            digest="sha256:" + hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            input_name="image",
        ),
        content=content,
    )


def result(number: int, infer_time: datetime) -> Result:
    # As good as random, and the same in every run: scores and latencies are what does not compress.
    drawn = hashlib.blake2b(number.to_bytes(8), digest_size=4).digest()
    score = float(np.float32(0.5 + int.from_bytes(drawn[:3]) / (1 << 25)))
    return Result(
        slot="solar",
        version=1,
        device="CPU",
        infer_time=infer_time,
        part_id=f"cell-{number:010d}",
        request_id="",
        outcome=Outcome.OK,
        labels=(LabelScore(label="good", score=score), LabelScore(label="defect", score=1 - score)),
        latency_us=8_000 + 8 * drawn[3],
    )


def batch_request(agent: str, batch: int) -> evidence_service_pb2.ReportEvidenceRequest:
    """A batch as the agent's own code writes it."""
    begin = datetime(2026, 3, 1, 8, tzinfo=UTC) + timedelta(seconds=10 * batch)
    first = batch * BATCH_RESULTS
    results = [result(first + index, begin + timedelta(microseconds=2_500 * index)) for index in range(BATCH_RESULTS)]
    return evidence_service_pb2.ReportEvidenceRequest(
        batch=batch,
        result_files=[
            evidence_service_pb2.ResultFile(
                digest=file.digest, size_bytes=len(file.content), row_count=file.rows, content=file.content
            )
            for file in result_files(results, agent=agent, batch=batch)
        ],
    )


@asynccontextmanager
async def connected(target: str, identities: Path, agent: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.secure_channel(target, credentials(identities, agent), OPTIONS) as channel:
        await channel.channel_ready()
        yield channel


async def send_all(send: Callable[[Any], Awaitable[object]], requests: Iterable[Any]) -> float:
    """Send every request, AT_ONCE at a time; return the seconds that it took."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(request: Any) -> None:
        async with turns:
            await send(request)

    begin = time.monotonic()
    await asyncio.gather(*map(one, requests))
    return time.monotonic() - begin


async def upload(target: str, identities: Path, requests: Sequence[Any]) -> float:
    async with connected(target, identities, "st-1") as channel:
        stub: Any = sample_upload_service_pb2_grpc.SampleUploadServiceStub(channel)
        return await send_all(stub.UploadSample, requests)


async def report(target: str, identities: Path, requests: Sequence[Any]) -> float:
    async with connected(target, identities, "st-1") as channel:
        stub: Any = evidence_service_pb2_grpc.EvidenceServiceStub(channel)
        return await send_all(stub.ReportEvidence, requests)


def put(paths: Sequence[Path], *, port: int, certificate_authority: Path) -> float:
    """Put every file with one curl over TLS to nginx's WebDAV; return the seconds that it took."""
    command = [
        *[
            "curl",
            "--silent",
            "--show-error",
            "--no-progress-meter",
            "--fail",
            "--http1.1",
            "--retry",
            "20",
            "--retry-connrefused",
        ],
        *["--parallel", "--parallel-max", str(AT_ONCE), "--cacert", str(certificate_authority)],
        *["--connect-to", f"{SERVER_NAME}:443:127.0.0.1:{port}"],
    ]
    for path in paths:
        command += ["--upload-file", str(path), f"https://{SERVER_NAME}/{path.parent.name}-{path.name}"]
    begin = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - begin


def write(paths: Sequence[Path], folder: Path) -> float:
    """Write every file to the disk, each durable before the next; return the seconds that it took."""
    folder.mkdir()
    contents = [path.read_bytes() for path in paths]
    begin = time.monotonic()
    for path, content in zip(paths, contents, strict=True):
        with (folder / path.name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    return time.monotonic() - begin


def measure(folder: Path) -> list[Row]:
    rng = np.random.default_rng(1)
    fleet = Fleet(folder=folder)
    pki = folder / "controller" / "pki"
    rates: dict[str, list[float]] = {"ours": [], "nginx": [], "disk": []}
    try:
        fleet.start_controller()
        token = fleet.operate_text("tokens", "create", "--uses", "1", "--ttl", "1h", "--label", "line=3").strip()
        identities = folder / "identities"
        endpoints = enroll(folder / "controller" / "operator.toml", token=token, names=["st-1"], folder=identities)
        (folder / "dav").mkdir()
        with nginx.storing(
            folder / "dav", folder=folder / "nginx", certificate=pki / "server.pem", key=pki / "server.key"
        ) as port:
            for number in range(ROUNDS):
                paths = pictures(folder / f"round-{number}", rng)
                requests = [sample_request(f"st-1-{number:03d}-{path.stem}", path) for path in paths]
                seconds = {
                    "ours": asyncio.run(upload(endpoints.agent_bytes, identities, requests)),
                    "nginx": put(paths, port=port, certificate_authority=pki / "ca.pem"),
                    "disk": write(paths, folder / f"disk-{number}"),
                }
                for name, taken in seconds.items():
                    rates[name].append(SAMPLES / taken)
        size = sum(path.stat().st_size for path in paths) / SAMPLES
        batches = [batch_request("st-1", number) for number in range(BATCHES)]
        taken = asyncio.run(report(endpoints.fleet, identities, batches))
    finally:
        fleet.stop()
    megabytes = {name: [rate * size / MEGABYTE for rate in of] for name, of in rates.items()}
    sent = sum(len(file.content) for batch in batches for file in batch.result_files)
    # The first round of each warms everything.
    return [
        compare("samples, beside curl to nginx WebDAV over TLS", rates["ours"][1:], "samples/s", rates["nginx"][1:]),
        compare("the same in bytes", megabytes["ours"][1:], "MB/s", megabytes["nginx"][1:]),
        compare("samples, beside write + fsync alone", rates["ours"][1:], "samples/s", rates["disk"][1:]),
        alone("results into the lake", BATCHES * BATCH_RESULTS / taken, "results/s"),
        alone("a result on the wire and in the store", sent / (BATCHES * BATCH_RESULTS), "bytes"),
        alone("a result in rows, as before", _row_bytes(), "bytes"),
    ]


def _row_bytes() -> float:
    return float(result_message(result(7, datetime(2026, 3, 1, 12, tzinfo=UTC))).ByteSize())


def main() -> None:
    nginx.require()
    with TemporaryDirectory(prefix="lineside-ingest-") as folder:
        rows = measure(Path(folder))
    publish("ingest", rows, baseline="nginx + curl over TLS, and the disk")


if __name__ == "__main__":
    main()
