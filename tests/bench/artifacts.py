"""Megabytes a second of a model on its way to an agent, against nginx and curl over TLS.

The agent's own client and cache download an artifact from the controller over mTLS: received, hashed, written and made
durable. curl downloads the same file from nginx, in turn and to the same disk; it checks nothing and leaves the file in
memory, so that one row has `sha256sum` and `sync` after it and the other has curl alone.
"""

import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from examples.solar.fleet import Fleet, script
from examples.solar.fleet import run as run_command
from tests.bench import nginx
from tests.bench.large_model import write_large_model
from tests.bench.report import Row, compare, publish
from tests.bench.simulated_agents import SERVER_NAME

ROUNDS = 7
LAYERS = 4
"""256 MiB."""
MEGABYTE = 1e6


def measure(folder: Path) -> list[Row]:
    size_bytes = write_large_model(folder / "model", layers=LAYERS)
    fleet = Fleet(folder=folder)
    pki = folder / "controller" / "pki"
    try:
        fleet.start_controller()
        state = enrol(fleet, "st-1")
        name = fleet.operate_text("models", "publish", "large", str(folder / "model"), "--wait").strip()
        fleet.operate("deployments", "create", "bench", "--model", name, "--selector", "agent=st-1")
        with nginx.serving(
            folder / "model", folder=folder / "nginx", certificate=pki / "server.pem", key=pki / "server.key"
        ) as port:
            ours, unchecked, checked = [], [], []
            for _ in range(ROUNDS):
                ours.append(download(state, folder / "cache"))
                seconds = nginx.download(
                    f"https://127.0.0.1:{port}/model.bin",
                    folder / "curl.bin",
                    host=SERVER_NAME,
                    certificate_authority=pki / "ca.pem",
                )
                unchecked.append(size_bytes / MEGABYTE / seconds)
                seconds += nginx.check_and_sync(folder / "curl.bin")
                checked.append(size_bytes / MEGABYTE / seconds)
    finally:
        fleet.stop()
    # The first round of each warms the files.
    return [
        compare("checked and on disk, beside curl + sha256sum + sync", ours[1:], "MB/s", checked[1:]),
        compare("checked and on disk, beside curl alone", ours[1:], "MB/s", unchecked[1:]),
    ]


def enrol(fleet: Fleet, name: str) -> Path:
    """Enrol an agent that nobody runs; return its folder."""
    token = fleet.operate_text("tokens", "create", "--uses", "1", "--ttl", "1h").strip()
    state = fleet.folder / name
    identity = ["--controller", fleet.controller, "--token", token, "--name", name]
    run_command(script("lineside-agent"), "enroll", "--dir", str(state), *identity)
    return state


def download(state: Path, cache: Path) -> float:
    """Megabytes a second of one download into a fresh cache."""
    shutil.rmtree(cache, ignore_errors=True)
    options = ["--state", str(state), "--cache", str(cache)]
    answer = json.loads(run_command(sys.executable, "-m", "tests.bench.artifact_download", *options))
    return float(answer["bytes"] / MEGABYTE / answer["seconds"])


def run() -> None:
    nginx.require()
    with TemporaryDirectory(prefix="lineside-bench-") as folder:
        rows = measure(Path(folder))
    publish("artifacts", rows, baseline="nginx + curl over TLS")
