"""The bytes process as a process of its own: how it starts, serves and ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from controlplane.config import SETTINGS_VARIABLE, Settings


@contextmanager
def bytes_process(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "controlplane.bytes_process"],
        env={**os.environ, SETTINGS_VARIABLE: settings.to_json()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def addresses_of(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    addresses: dict[str, str] = json.loads(process.stdout.readline())
    return addresses


def test_says_where_it_listens_and_ends_on_sigterm(settings: Settings) -> None:
    with bytes_process(settings) as process:
        addresses = addresses_of(process)
        assert set(addresses) == {"agent_bytes", "operator_bytes"}
        ca = (settings.pki_dir / "ca.pem").read_bytes()
        options = (("grpc.ssl_target_name_override", "controlplane.lineside.internal"),)
        credentials = grpc.ssl_channel_credentials(ca)
        with grpc.secure_channel(addresses["operator_bytes"], credentials, options=options) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="lineside.v1.UploadService")
            assert health.Check(request, timeout=20).status == health_pb2.HealthCheckResponse.SERVING
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_ends_with_its_parent(settings: Settings) -> None:
    with bytes_process(settings) as process:
        addresses_of(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=20) == 0
        process.stdin = None


def test_a_process_killed_and_started_again_listens_on_the_same_ports(settings: Settings) -> None:
    with bytes_process(settings) as process:
        addresses = addresses_of(process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=20)
    ports = {name: int(address.rpartition(":")[2]) for name, address in addresses.items()}
    again = json.loads(settings.to_json())
    for name, port in ports.items():
        again[name]["port"] = port
    with bytes_process(Settings.from_json(json.dumps(again))) as process:
        assert addresses_of(process) == addresses


@pytest.mark.parametrize("blocked", ["uploads", "artifacts"])
def test_a_folder_that_cannot_be_used_ends_it(settings: Settings, blocked: str) -> None:
    path = Path(settings.dir) / blocked
    if path.exists():
        path.rename(path.with_suffix(".moved"))
    path.write_text("in the way")
    with bytes_process(settings) as process:
        assert process.wait(timeout=30) == 1
