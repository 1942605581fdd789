"""Images a second through an agent, against OpenVINO's own benchmark_app on the same model and device.

An agent serves the demo's classifier; an unmodified tritonclient in a process of its own keeps several requests in
flight. Rounds alternate with benchmark_app, which calls the runtime directly, with no server between.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from examples.solar import data, model
from examples.solar.fleet import Fleet, script
from examples.solar.fleet import run as run_command
from tests.bench.report import ROOT, Row, alone, compare, publish

ROUNDS = 5
ROUND_SECONDS = 6
IN_FLIGHT = 4
MODEL = "solar-defect"
SAMPLE_NOTHING = ("--sample-budget", "0")
"""What is compared is serving; the spool is measured by its own tests."""


def run_rounds(folder: Path) -> list[Row]:
    """Serve the model by a fleet below `folder`; return the rows."""
    training, held_out = data.split(data.load_mono_cells(), seed=0)
    path = model.build_version(data.fetch_backbone(ROOT / ".cache"), training.take(range(60)), folder / "model")
    fleet = Fleet(folder=folder)
    try:
        fleet.start_controller()
        token = fleet.operate_text("tokens", "create", "--uses", "1", "--ttl", "1h").strip()
        agent = fleet.start_agent("st-1", token=token, label="bench=serving")
        name = fleet.operate_text("models", "publish", MODEL, str(path.parent), "--wait").strip()
        fleet.operate(
            *["deployments", "create", "bench", "--model", name, "--selector", "bench=serving", "--hint", "THROUGHPUT"],
            *SAMPLE_NOTHING,
        )
        image = folder / "image.bin"
        image.write_bytes(held_out.images[0].tobytes())
        served, bare, p95 = [], [], []
        ask(agent.grpc, image, seconds=2)
        for _ in range(ROUNDS):
            answer = ask(agent.grpc, image, seconds=ROUND_SECONDS)
            served.append(answer["images_per_second"])
            p95.append(answer["p95_ms"])
            bare.append(benchmark_app(path))
    finally:
        fleet.stop()
    return [
        compare("images a second, gRPC", served, "1/s", bare),
        alone(f"p95 with {IN_FLIGHT} in flight, gRPC", sorted(p95)[len(p95) // 2], "ms"),
    ]


def ask(endpoint: str, image: Path, *, seconds: float) -> dict[str, float]:
    """Keep IN_FLIGHT requests in flight for `seconds`, from a process of its own."""
    options = ["--endpoint", endpoint, "--model", MODEL, "--image", str(image)]
    load = ["--in-flight", str(IN_FLIGHT), "--seconds", str(seconds)]
    return dict(json.loads(run_command(sys.executable, "-m", "tests.bench.serving_client", *options, *load)))


def benchmark_app(path: Path) -> float:
    """Inferences a second as benchmark_app counts them."""
    command = [script("benchmark_app"), "-m", str(path), "-d", "CPU", "-hint", "throughput", "-t", str(ROUND_SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Throughput:\s+([\d.]+) FPS", done.stdout)
    assert found, done.stdout
    return float(found[1])


def run() -> None:
    with TemporaryDirectory(prefix="lineside-bench-") as folder:
        rows = run_rounds(Path(folder))
    publish("serving", rows, baseline="benchmark_app on the same model")
