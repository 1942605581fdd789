"""Keeps a number of requests in flight at an agent for some seconds; prints what came of it as JSON."""

import argparse
import json
import threading
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc as client

from examples.solar.data import CELL_SIDE_PIXELS

READY_SECONDS = 60.0


def wait_until_ready(connection: client.InferenceServerClient, model: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not connection.is_model_ready(model):
        if time.monotonic() > deadline:
            raise SystemExit(f"{model} was not ready within {READY_SECONDS:.0f} s")
        time.sleep(0.1)


def ask(endpoint: str, model: str, image: bytes, until: float, latencies_ms: list[float]) -> None:
    """One connection, one request after another until `until`."""
    shape = [1, CELL_SIDE_PIXELS, CELL_SIDE_PIXELS, 1]
    tensor = client.InferInput("image", shape, "UINT8")
    tensor.set_data_from_numpy(np.frombuffer(image, dtype=np.uint8).reshape(shape))
    with client.InferenceServerClient(endpoint) as connection:
        while (begin := time.monotonic()) < until:
            connection.infer(model, [tensor])
            latencies_ms.append((time.monotonic() - begin) * 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    with client.InferenceServerClient(options.endpoint) as connection:
        wait_until_ready(connection, options.model)
    latencies_ms: list[float] = []
    begin = time.monotonic()
    work = (options.endpoint, options.model, options.image.read_bytes(), begin + options.seconds, latencies_ms)
    askers = [threading.Thread(target=ask, args=work) for _ in range(options.in_flight)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    rate = len(latencies_ms) / (time.monotonic() - begin)
    cpu_ms = time.process_time() * 1e3 / len(latencies_ms)
    print(json.dumps({"images_per_second": rate, "p95_ms": float(np.percentile(latencies_ms, 95)), "cpu_ms": cpu_ms}))


if __name__ == "__main__":
    main()
