"""A camera application of one station, as a process of its own: it replays images through an unmodified `tritonclient`.

    python -m examples.solar.load --protocol grpc --endpoint HOST:PORT --model M --cells FILE.npz --report FILE.json

It waits until the model answers at its station, then sends one image after another at `--rate`, over and over, each
with its `part_id`, never twice for a failure, until its stdin ends. What it saw stands in the report, which is
replaced as a whole about twice a second and once at the end.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from examples.solar.data import Images

INPUT = "image"
WORKERS = 2
REQUEST_TIMEOUT_SECONDS = 30.0
REPORT_SECONDS = 0.5
ERRORS_KEPT = 5


class Station(Protocol):
    """The Open Inference Protocol at one agent. For the thread that made it alone, as tritonclient.http is."""

    def is_ready(self, model: str) -> bool: ...
    def infer(self, model: str, image: Images, part_id: str) -> str:
        """Return the version that answered. Raises the client library's own error when the image is lost."""
        ...


class GrpcStation:
    def __init__(self, endpoint: str) -> None:
        import tritonclient.grpc as client

        self._library: Any = client
        self._client: Any = client.InferenceServerClient(endpoint)

    def is_ready(self, model: str) -> bool:
        try:
            return bool(self._client.is_model_ready(model, client_timeout=REQUEST_TIMEOUT_SECONDS))
        except self._library.InferenceServerException:
            return False  # the slot has no version yet

    def infer(self, model: str, image: Images, part_id: str) -> str:
        tensor = self._library.InferInput(INPUT, list(image.shape), "UINT8")
        tensor.set_data_from_numpy(image)
        answer = self._client.infer(
            model, [tensor], parameters={"part_id": part_id}, client_timeout=REQUEST_TIMEOUT_SECONDS
        )
        return str(answer.get_response().model_version)


class HttpStation:
    def __init__(self, endpoint: str) -> None:
        import tritonclient.http as client

        self._library: Any = client
        self._client: Any = client.InferenceServerClient(
            endpoint, connection_timeout=REQUEST_TIMEOUT_SECONDS, network_timeout=REQUEST_TIMEOUT_SECONDS
        )

    def is_ready(self, model: str) -> bool:
        return bool(self._client.is_model_ready(model))

    def infer(self, model: str, image: Images, part_id: str) -> str:
        tensor = self._library.InferInput(INPUT, list(image.shape), "UINT8")
        tensor.set_data_from_numpy(image)
        answer = self._client.infer(model, [tensor], parameters={"part_id": part_id})
        return str(answer.get_response()["model_version"])


@dataclass(slots=True)
class Tally:
    """What was sent and what came of it."""

    sent: int = 0
    answered: int = 0
    errors: list[str] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    parts: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    answers: Counter[str] = field(default_factory=Counter)
    first_time: float = 0.0
    last_time: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count_sent(self, now: float) -> None:
        with self.lock:
            self.sent += 1
            self.first_time = self.first_time or now

    def count_answer(self, now: float, *, version: str, part_id: str, latency_ms: float) -> None:
        with self.lock:
            self.answered += 1
            self.last_time = now
            self.latencies_ms.append(latency_ms)
            self.parts[version].add(part_id)
            self.answers[version] += 1

    def count_error(self, message: str) -> None:
        with self.lock:
            self.errors = [*self.errors, message][:ERRORS_KEPT]

    def to_json(self) -> str:
        with self.lock:
            seconds = max(self.last_time - self.first_time, 0.0)
            return json.dumps(
                {
                    "sent": self.sent,
                    "answered": self.answered,
                    "errors": self.errors,
                    "seconds": seconds,
                    "p95_ms": float(np.percentile(self.latencies_ms, 95)) if self.latencies_ms else None,
                    "answers_by_version": dict(self.answers),
                    "parts_by_version": {version: len(parts) for version, parts in self.parts.items()},
                }
            )


class Schedule:
    """Hands out (row, due time) in order; a late worker goes at once, without catching up on what it missed."""

    def __init__(self, *, rows: int, first_row: int, rate: float) -> None:
        self._rows = rows
        self._next_row = first_row % rows
        self._interval = 1.0 / rate
        self._due = time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> tuple[int, float]:
        with self._lock:
            row, due = self._next_row, max(self._due, time.monotonic() - self._interval)
            self._next_row = (row + 1) % self._rows
            self._due = due + self._interval
            return row, due


def replay(
    new_station: Callable[[str], Station],
    options: argparse.Namespace,
    schedule: Schedule,
    tally: Tally,
    stop: threading.Event,
) -> None:
    """Send what the schedule hands out until `stop`; the image in flight is still awaited."""
    with np.load(options.cells) as cells:
        images, part_ids = cells["images"], [str(part_id) for part_id in cells["part_ids"]]
    station = new_station(options.endpoint)
    while not stop.is_set():
        row, due = schedule.take()
        if stop.wait(max(due - time.monotonic(), 0.0)):
            return
        begin = time.monotonic()
        tally.count_sent(begin)
        try:
            version = station.infer(options.model, images[row][None], part_ids[row])
        except Exception as error:  # noqa: BLE001 - any failure is a lost image, and is reported as one
            tally.count_error(f"{part_ids[row]}: {type(error).__name__}: {error}")
            continue
        end = time.monotonic()
        tally.count_answer(end, version=version, part_id=part_ids[row], latency_ms=(end - begin) * 1e3)


def write_report(tally: Tally, path: Path) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(tally.to_json())
    os.replace(partial, path)


def wait_until_ready(station: Station, model: str, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            if station.is_ready(model):
                return
        except OSError:
            pass  # the agent is still starting
        stop.wait(0.2)


def stop_with_stdin(stop: threading.Event) -> None:
    """Whoever started this process holds the other end: when that ends, this does."""
    sys.stdin.read()
    stop.set()


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Replay images at one station.")
    parser.add_argument("--protocol", choices=["grpc", "http"], required=True)
    parser.add_argument("--endpoint", required=True, help="host:port of the agent's inference server")
    parser.add_argument("--model", required=True, help="slot to address")
    parser.add_argument("--cells", type=Path, required=True, help="npz with images and part_ids")
    parser.add_argument("--report", type=Path, required=True, help="JSON file to keep up to date")
    parser.add_argument("--rate", type=float, required=True, help="images a second")
    parser.add_argument("--first-row", type=int, default=0, help="where in the images to begin")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    stop = threading.Event()
    threading.Thread(target=stop_with_stdin, args=(stop,), daemon=True).start()
    new_station: Callable[[str], Station] = GrpcStation if options.protocol == "grpc" else HttpStation
    wait_until_ready(new_station(options.endpoint), options.model, stop)
    tally = Tally()
    with np.load(options.cells) as cells:
        schedule = Schedule(rows=len(cells["part_ids"]), first_row=options.first_row, rate=options.rate)
    work = (new_station, options, schedule, tally, stop)
    workers = [threading.Thread(target=replay, args=work) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    while not stop.wait(REPORT_SECONDS):
        write_report(tally, options.report)
    for worker in workers:
        worker.join()
    write_report(tally, options.report)


if __name__ == "__main__":
    main()
